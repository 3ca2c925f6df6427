"""What an operator is shown of bytes that strangers wrote: nothing that a terminal obeys, and no secret.

Event types, error texts, bodies and answers come from publishers and endpoints: they may hold escape sequences that
move the cursor, set a window's title or answer for the one who reads, and letters that turn the line around.
"""

import re
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"passw|secret|token|api[_-]?key|private[_-]?key|authorization|credential|signature|\A(?:set-)?cookie\Z",
    re.IGNORECASE,
)
# What this dispatcher itself sends: an endpoint may well answer with it.
_SECRET_TEXT = re.compile(r"whsec_[A-Za-z0-9+/=_-]+|(?<=Bearer )[^\s\"',;]+|(?<=sha256=)[0-9a-f]{16,}", re.IGNORECASE)
_MEMBER = (
    rb"\"[^\"\\]{0,64}(?:passw|secret|token|api[_-]?key|private[_-]?key|authorization|credential|signature)"
    rb"[^\"\\]{0,64}\"\s*:\s*"
)
_SECRET_MEMBER = re.compile(_MEMBER + rb"(?:\"((?:[^\"\\]|\\.)*+)|(-?\d[\d.eE+-]*+))", re.IGNORECASE)
_SECRET_CONTAINER = re.compile(_MEMBER + rb"[\[{]", re.IGNORECASE)
_BRACKETS = re.compile(rb"\"(?:[^\"\\]|\\.)*+\"?|[\[{]|[\]}]", re.DOTALL)
_SECRET_BYTES = re.compile(rb"whsec_([A-Za-z0-9+/=_-]+)|Bearer ([^\s\"',;]+)", re.IGNORECASE)


def legible(text: str, *, lines: bool = False) -> str:
    r"""Return a text with everything escaped that doesn't print as itself: controls, directions, what has no width.

    Args:
        text: Anything.
        lines: Whether line breaks stay; else they are escaped as well.
    """
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or (lines and char == "\n") else _escaped(char) for char in text])


def legible_json(value: Any) -> Any:
    """Return a JSON value without secrets: members whose name says that they are some, strings that look like one."""
    match value:
        case dict():
            return {name: _masked_member(name, member) for name, member in value.items()}
        case list():
            return [legible_json(member) for member in value]
        case str():
            return masked(value)
    return value


def masked(text: str) -> str:
    """Return a text without what looks like a signing secret, a bearer token or a signature."""
    return _SECRET_TEXT.sub(lambda found: f"{found[0][:6] if found[0][:6].lower() == 'whsec_' else ''}{MASK}", text)


def masked_bytes(raw: bytes) -> bytes:
    """Return bytes of the same length, with asterisks for what looks like a secret in JSON or in a header."""
    return _SECRET_BYTES.sub(_starred, _SECRET_MEMBER.sub(_starred, _without_containers(raw)))


def is_secret_name(name: str) -> bool:
    """Say whether what goes by a name, of a JSON member or of a header, is a secret."""
    return _SECRET_NAME.search(name.removeprefix("ce_")) is not None


def _masked_member(name: str, member: Any) -> Any:
    if is_secret_name(name) and member is not None and not isinstance(member, bool):
        return MASK
    return legible_json(member)


def _without_containers(raw: bytes) -> bytes:
    """Star what lists and objects hold whose member's name says that they are secret; a cut off one to the end."""
    masked_raw, at = bytearray(raw), 0
    while found := _SECRET_CONTAINER.search(raw, at):
        at, depth = len(raw), 1
        for token in _BRACKETS.finditer(raw, found.end()):
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
            if not depth:
                at = token.start()
                break
        masked_raw[found.end() : at] = b"*" * (at - found.end())
    return bytes(masked_raw)


def _starred(found: re.Match[bytes]) -> bytes:
    group = found.lastindex or 0
    start, end = found.start(group) - found.start(), found.end(group) - found.start()
    return found[0][:start] + b"*" * (end - start) + found[0][end:]


def _escaped(char: str) -> str:
    if char in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - as many digits as it takes
