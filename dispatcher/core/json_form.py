"""JSON in the one form that `JSON.stringify(JSON.parse(text))` gives in JavaScript.

Receivers that verify a signature over the re-serialised object need the very bytes that their language writes.
Almost every event already has nothing that differs between languages (no fraction, exponent or long integer, no
key that is an array index), so a walk over the parsed value decides whether the fast library may write it; the
rest goes a slow, exact way.

Source: ECMA-262, SerializeJSONProperty, QuoteJSONString, Number::toString, OrdinaryOwnPropertyKeys.
"""

import json
import math
import re
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import Any

import orjson

from dispatcher.core.errors import UndecodableError

MAX_NESTING = 128

_MAX_ARRAY_INDEX = 2**32 - 2
_INDEX_KEY = re.compile(r"0|[1-9][0-9]{0,9}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAX_DIGITS = 309
_PLAIN_EXPONENT = range(-6, 21)
_PLAIN_FROM = 1e-4
_PLAIN_BELOW = 1e15
"""Between these two, both libraries write a double with a fraction as the same plain digits."""


class Document:
    """A parsed JSON text.

    Attributes:
        value: What it says, as Python objects.
        plain: True where the fast library writes the canonical form of every part of it.
    """

    __slots__ = ("plain", "value")

    def __init__(self, value: Any, *, plain: bool) -> None:
        self.value = value
        self.plain = plain

    def dump(self, part: Any) -> bytes:
        """Return a part of the document in canonical form, UTF-8."""
        return orjson.dumps(part) if self.plain else dump(part)


def parse(raw: bytes) -> Document:
    """Parse a JSON text.

    Args:
        raw: UTF-8 bytes.

    Raises:
        UndecodableError: It is no JSON, has NaN or infinity, a number beyond a double, or is nested deeper than
            `MAX_NESTING`; the text says at which byte where that is known.
    """
    if raw.count(b"{") + raw.count(b"[") <= MAX_NESTING:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # a lone surrogate, or no JSON at all: the slow way tells
        else:
            if _is_plain(value):
                return Document(value, plain=True)
    return Document(_parse_slowly(raw), plain=False)


def dump(value: Any) -> bytes:
    """Return a parsed value in canonical form, UTF-8."""
    parts: list[str] = []
    _write(value, parts.append)
    text = "".join(parts)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _is_plain(value: Any) -> bool:
    """Say whether the fast library writes a value as JavaScript does.

    Integers beyond 64 bits come out of it as floats, and so fail the test for floats.
    """
    children: Iterable[Any]
    if type(value) is dict:
        for key in value:
            if "0" <= key < ":" and _INDEX_KEY.fullmatch(key):
                return False
        children = value.values()
    else:
        children = value if type(value) is list else (value,)
    for child in children:
        kind = type(child)
        if kind is dict or kind is list:
            if not _is_plain(child):
                return False
        elif kind is float and not (_PLAIN_FROM <= abs(child) < _PLAIN_BELOW and child % 1):
            return False
    return True


def _parse_slowly(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UndecodableError(f"the value is not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_double, parse_constant=_constant)
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode())
        raise UndecodableError(f"the value is no JSON: {error.msg} at byte {at}") from None
    except RecursionError:
        raise UndecodableError(f"the value is nested deeper than {MAX_NESTING}") from None
    _check_nesting(value)
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS + 1 or math.isinf(float(digits)):
        raise UndecodableError("the value has a number beyond a double")
    return int(digits)


def _double(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UndecodableError("the value has a number beyond a double")
    return value


def _constant(name: str) -> None:
    raise UndecodableError(f"the value has {name}, which is no JSON")


def _check_nesting(value: Any) -> None:
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [container for container in level if isinstance(container, dict | list)]
        if not level:
            return
        level = [
            child for container in level for child in (container.values() if isinstance(container, dict) else container)
        ]
    raise UndecodableError(f"the value is nested deeper than {MAX_NESTING}")


def _write(value: Any, put: Any) -> None:
    match value:
        case str():
            put(encode_basestring(value))
        case None | True | False:
            put({None: "null", True: "true", False: "false"}[value])
        case int():
            put(str(value))
        case float():
            put(number(value))
        case dict():
            _write_object(value, put)
        case _:
            put("[")
            for position, item in enumerate(value):
                if position:
                    put(",")
                _write(item, put)
            put("]")


def _write_object(value: dict[str, Any], put: Any) -> None:
    indexes = [key for key in value if _INDEX_KEY.fullmatch(key) and int(key) <= _MAX_ARRAY_INDEX]
    keys = value.keys()
    ordered = [*sorted(indexes, key=int), *(key for key in keys if key not in set(indexes))] if indexes else keys
    put("{")
    for position, key in enumerate(ordered):
        if position:
            put(",")
        put(encode_basestring(key))
        put(":")
        _write(value[key], put)
    put("}")


def number(value: float) -> str:
    """Return a finite double as JavaScript writes it."""
    if value == 0:
        return "0"
    mantissa, _, exponent_text = f"{value!r}".lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The decimal point stands behind this many of the digits.
    point = len(whole) + int(exponent_text or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if point - 1 not in _PLAIN_EXPONENT:
        tail = f".{digits[1:]}" if count > 1 else ""
        return f"{sign}{digits[0]}{tail}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if count <= point:
        return f"{sign}{digits}{'0' * (point - count)}"
    return f"{sign}{digits[:point]}.{digits[point:]}"
