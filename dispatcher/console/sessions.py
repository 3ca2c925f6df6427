"""Who is signed in: a sealed cookie, and nothing kept by the server.

The cookie holds the SHA-256 of an API key, never the key. The key is looked up again at each request, so that its
revocation or expiry ends every session that it opened. Whoever holds the encryption keys can open a session, and
nobody else.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from dispatcher.core.errors import SealError
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.operations.api_keys import digest_of
from dispatcher.operations.identifiers import Draw
from dispatcher.ports import Clock

SESSION_SECONDS = 12 * 3600
"""How long one stays signed in: a working day."""
SIGN_IN_SECONDS = 3600
"""How long a sign-in page that was opened can be used."""
FLASH_SECONDS = 300

_TOKEN_BYTES = 24
_FORM_ID_BYTES = 18
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's session.

    Attributes:
        token: Random; it ties flashes to this session.
        key_digest: Of the API key; empty where nobody is signed in yet.
        ends_at_ms: Unix milliseconds.
    """

    token: str = field(repr=False)
    key_digest: bytes = field(repr=False)
    ends_at_ms: int

    @property
    def signed_in(self) -> bool:
        """Whether a key was given."""
        return bool(self.key_digest)

    @property
    def form_token(self) -> str:
        """What each form carries: the same for all sessions of a key, so that an open form outlives its session."""
        if not self.key_digest:
            return self.token
        digest = hashlib.sha256(b"token of the console's forms\0" + self.key_digest).digest()
        return base64.urlsafe_b64encode(digest).decode()


@dataclass(frozen=True, slots=True)
class Flash:
    """What the next page says, once.

    Attributes:
        text: A sentence.
        kind: `good`, `bad` or `plain`.
        secret: A signing secret that is shown this once; empty where there is none.
        about: What the secret is of: a webhook's id.
    """

    text: str
    kind: str = "good"
    secret: str = field(default="", repr=False)
    about: str = ""


class Sessions:
    """Makes and reads the cookies of sessions and flashes.

    Args:
        keyring: Seals them.
        clock: Time.
        draw: Random bytes, fit for secrets.
    """

    def __init__(self, keyring: Keyring, clock: Clock, draw: Draw) -> None:
        self._keyring = keyring
        self._clock = clock
        self._draw = draw

    def begin(self, bearer: str = "") -> Session:
        """Begin a session with an API key that was found to be good; without one, that of a sign-in page."""
        token = base64.urlsafe_b64encode(self._draw(_TOKEN_BYTES)).decode()
        seconds = SESSION_SECONDS if bearer else SIGN_IN_SECONDS
        digest = digest_of(bearer) if bearer else b""
        return Session(token, digest, self._clock.now_ms() + seconds * 1000)

    def form_id(self) -> str:
        """Return a new id for the forms of a page."""
        return base64.urlsafe_b64encode(self._draw(_FORM_ID_BYTES)).decode()

    def write(self, session: Session) -> str:
        """Return the cookie of a session."""
        content = {"t": session.token, "k": session.key_digest.hex(), "e": session.ends_at_ms}
        return self._seal(content, "session")

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None where it has ended, or is none of ours."""
        content = self._open(cookie, "session")
        if content is None or content["e"] <= self._clock.now_ms():
            return None
        return Session(content["t"], bytes.fromhex(content["k"]), content["e"])

    def write_flash(self, session: Session, flash: Flash) -> str:
        """Return the cookie of a flash, which this session alone can read, for some minutes."""
        ends_at_ms = self._clock.now_ms() + FLASH_SECONDS * 1000
        content = {"x": flash.text, "k": flash.kind, "s": flash.secret, "a": flash.about, "e": ends_at_ms}
        return self._seal(content, session.token)

    def read_flash(self, session: Session, cookie: str) -> Flash | None:
        """Return the flash of a cookie; None where it is too old, or another session's."""
        content = self._open(cookie, session.token)
        if content is None or content["e"] <= self._clock.now_ms():
            return None
        return Flash(content["x"], content["k"], content["s"], content["a"])

    def _seal(self, content: dict[str, Any], bound_to: str) -> str:
        aad = binding("console", bound_to, SealPurpose.SESSION)
        sealed = self._keyring.seal(orjson.dumps(content), nonce=self._draw(NONCE_BYTES), aad=aad)
        return base64.urlsafe_b64encode(sealed).decode()

    def _open(self, cookie: str, bound_to: str) -> dict[str, Any] | None:
        aad = binding("console", bound_to, SealPurpose.SESSION)
        try:
            content: dict[str, Any] = orjson.loads(self._keyring.open(base64.urlsafe_b64decode(cookie), aad=aad))
        except (SealError, binascii.Error, ValueError):
            return None
        return content


def shortened(flash: Flash, length: int) -> Flash:
    """Return a flash whose text fits a cookie."""
    return flash if len(flash.text) <= length else replace(flash, text=f"{flash.text[: length - 1]}…")
