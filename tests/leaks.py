"""Looks for secrets in whatever the system wrote: in clear, and in the forms that software writes texts in."""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

SHORTEST = 8


def forms_of(secret: bytes) -> dict[str, bytes]:
    """Give the forms of a secret by name; each is what a search looks for."""
    if len(secret) < SHORTEST:
        raise ValueError(f"too short to be found by: {secret!r}")
    forms = {"clear": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode()}
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + secret).rstrip(b"=")
        # Without the characters that a neighbour has a part in.
        sure = coded[-(-before * 8 // 6) : len(coded) - (1 if (before + len(secret)) % 3 else 0)]
        forms[f"base64 at {before}"] = sure
        forms[f"base64url at {before}"] = sure.replace(b"+", b"-").replace(b"/", b"_")
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return forms
    forms |= {
        "URL": quote(text, safe="").encode(),
        "form": quote_plus(text).encode(),
        "path": quote(text).encode(),
        "JSON": json.dumps(text)[1:-1].encode(),
        "JSON with escaped slashes": json.dumps(text)[1:-1].replace("/", "\\/").encode(),
        "repr": repr(text)[1:-1].encode(),
        "JSON in JSON": json.dumps(json.dumps(text)[1:-1])[1:-1].encode(),
        "HTML": html.escape(text).encode(),
        "HTML of Jinja": html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;").encode(),
    }
    return forms


@dataclass
class Written:
    """What the system wrote, by where it was found.

    Attributes:
        texts: Place and bytes.
    """

    texts: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, place: str, text: str | bytes) -> None:
        """Keep what stands somewhere."""
        self.texts.append((place, text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text))

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return sum(len(text) for _, text in self.texts)

    def leaks(self, secrets: Mapping[str, str | bytes]) -> list[str]:
        """Say which secret stands where, in which form, and what is around it."""
        return list(self._leaks((name, _raw(secret)) for name, secret in secrets.items()))

    def _leaks(self, secrets: Iterable[tuple[str, bytes]]) -> Iterable[str]:
        for name, secret in secrets:
            for form, wanted in forms_of(secret).items():
                for place, text in self.texts:
                    at = text.find(wanted)
                    if at >= 0:
                        yield f"{name} ({form}) in {place}: {text[max(0, at - 60) : at + len(wanted) + 20]!r}"


def _raw(secret: str | bytes) -> bytes:
    return secret.removeprefix("whsec_").encode() if isinstance(secret, str) else secret
