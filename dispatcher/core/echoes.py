"""Endpoints that answer with what they were sent: their answers are kept without the webhook's secrets.

Debug servers and the error pages of many frameworks show the request's headers. What is kept of an answer stands in the
delivery log, and whoever may read the webhook sees it.
"""

import base64
import html
import json
import re
import sys
from collections.abc import Iterable
from urllib.parse import quote

from dispatcher.core.exchange import KEPT_BODY_BYTES
from dispatcher.core.masking import MASK

SHORTEST_SECRET = 4
"""Shorter secrets are not masked: a key such as `1` is none, and stands in every text."""

_PREFIX = "whsec_"
_ENCODED_FROM = 8
_SEEN_FROM = 4
_BASE64_LEADING = (0, 2, 3)
_NEVER_ESCAPED = re.compile("[A-Za-z0-9._~-]+")
_URL_ESCAPE = re.compile("%[0-9A-F]{2}")
_MASK = MASK.encode()


class EchoMask:
    """Takes the secrets of one webhook out of its endpoint's answers.

    Args:
        secrets: In clear text. `whsec_` in front of one is no part of the secret, and stays.
    """

    __slots__ = ("_needles",)

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in forms_of(secret)}
        # The longest first: one that holds another is replaced as a whole.
        self._needles = sorted(forms, key=lambda form: (-len(form), form))

    def __repr__(self) -> str:
        return f"EchoMask({len(self._needles)} forms)"

    def masked(self, body: bytes) -> bytes:
        """Return the kept part of a response body with `***` for each secret, in clear or in a usual encoding.

        Args:
            body: At most `KEPT_BODY_BYTES`; where it has as many, a secret may be cut off at its end.
        """
        is_cut = len(body) >= KEPT_BODY_BYTES
        for needle in self._needles:
            if needle in body:
                body = body.replace(needle, _MASK)
        return self._without_cut_off(body) if is_cut else body

    def _without_cut_off(self, body: bytes) -> bytes:
        """Mask the beginning of a secret that the body ends with."""
        cut_at = len(body)
        for needle in self._needles:
            start = needle[:_SEEN_FROM]
            at = body.find(start, max(0, len(body) - len(needle)))
            while at >= 0:
                if needle.startswith(body[at:]):
                    cut_at = min(cut_at, at)
                    break
                at = body.find(start, at + 1)
        return body if cut_at == len(body) else body[:cut_at] + _MASK


def shortest_of(secrets: Iterable[str]) -> int:
    """Return below how many bytes no text holds one of some secrets; more than any text has where none is masked."""
    lengths = [len(secret.removeprefix(_PREFIX)) for secret in secrets]
    return min((length for length in lengths if length >= SHORTEST_SECRET), default=sys.maxsize)


def forms_of(secret: str) -> set[bytes]:
    """Return how a secret looks in texts: as it is, escaped as in JSON, URLs and HTML, in base64 and in hex.

    A secret that is too short is in no form; base64 has those of its characters that no neighbour changes, which leaves
    two bytes of the secret at either end.
    """
    plain = secret.removeprefix(_PREFIX)
    if len(plain) < SHORTEST_SECRET:
        return set()
    forms = {plain} if _NEVER_ESCAPED.fullmatch(plain) else _escaped(plain)
    raw = plain.encode()
    encoded: set[bytes] = set()
    if len(raw) >= _ENCODED_FROM:
        digits = raw.hex().encode()
        encoded = {digits, digits.upper(), *_in_base64(raw)}
    return {form.encode() for form in forms} | encoded


def _escaped(plain: str) -> set[str]:
    in_json, in_url, in_html = json.dumps(plain)[1:-1], quote(plain, safe=""), html.escape(plain)
    return {
        plain,
        repr(plain)[1:-1],
        in_json,
        json.dumps(plain, ensure_ascii=False)[1:-1],
        in_json.replace("/", "\\/"),  # PHP
        _code_points(plain, "&<>", "{:04x}"),  # Go
        _code_points(plain, "&<>'\"+`", "{:04X}"),  # .NET
        in_url,
        _URL_ESCAPE.sub(lambda found: found[0].lower(), in_url),
        quote(plain),
        in_html,
        html.escape(plain, quote=False),
        in_html.replace("+", "&#43;"),  # Go
        in_html.replace("=", "&#x3D;").replace("/", "&#x2F;"),  # Handlebars
    }


def _code_points(text: str, chars: str, as_digits: str) -> str:
    """Return a text as it stands in JSON, with some of its characters as code points."""
    text = json.dumps(text, ensure_ascii=False)[1:-1]
    if '"' in chars:
        text = text.replace('\\"', '"')
    return "".join([f"\\u{as_digits.format(ord(char))}" if char in chars else char for char in text])


def _in_base64(raw: bytes) -> Iterable[bytes]:
    for before in range(3):
        end = (before + len(raw)) % 3
        text = base64.b64encode(bytes(before) + raw).rstrip(b"=")
        # What shares its six bits with a neighbour is not the secret's alone.
        sure = text[_BASE64_LEADING[before] : len(text) - (1 if end else 0)]
        yield sure
        yield sure.translate(bytes.maketrans(b"+/", b"-_"))
