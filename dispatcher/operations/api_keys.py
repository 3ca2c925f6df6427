"""Make, list and revoke API keys, and say whose a bearer token is."""

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    QuotaError,
    UnauthorizedError,
    UnavailableError,
)
from dispatcher.core.model import WORKSPACE_ID
from dispatcher.operations.api_key_fields import MAX_NAME_LENGTH, read_new_api_key
from dispatcher.operations.audit import COMMAND_LINE, KEY_ACTOR, Audit
from dispatcher.operations.identifiers import Draw, new_id
from dispatcher.operations.text_rules import is_line
from dispatcher.operations.times import parse_rfc3339, rfc3339
from dispatcher.ports import Actor, ApiKey, ApiKeyStore, Clock, Page

KEY_PREFIX = "whk_"
SCOPES = ("read", "write", "admin")

_SECRET_BYTES = 32
_CACHE_SECONDS = 1.0
_CACHE_KEYS = 1024
_UNKNOWN = "the API key is unknown or was revoked; make one with: dispatcher api-keys create --workspace <workspace>"


@dataclass(frozen=True, slots=True)
class CreatedApiKey:
    """A new API key and its text, `whk_…`: the only time that it is shown."""

    key: ApiKey
    plaintext: str = field(repr=False)


def digest_of(bearer: str) -> bytes:
    """Return what stands for a key where the key itself is not to be kept: in the store, and in a session."""
    return _hash(bearer)


def allows(key: ApiKey, scope: str) -> bool:
    """Say whether a key may do what needs `scope`; `admin` implies the others."""
    return scope in key.scopes or "admin" in key.scopes


class ApiKeys:
    """The API keys of all workspaces. The store knows a key's SHA-256 and never the key.

    A key that was found is remembered for a second, so that a busy caller doesn't cost a read each time; one
    that is revoked is refused a second later at most, on every process.

    Args:
        store: Where they are kept.
        clock: Time.
        draw: Random bytes, fit for secrets.
        audit: Where changes are written down; None: nowhere.
        most: How many a workspace may have; None: any number.
    """

    def __init__(
        self, store: ApiKeyStore, clock: Clock, draw: Draw, *, audit: Audit | None = None, most: int | None = None
    ) -> None:
        self._most = most
        self._audit = audit
        self._store = store
        self._clock = clock
        self._draw = draw
        self._found: dict[bytes, tuple[float, ApiKey]] = {}
        self._used: set[str] = set()

    async def create_from(self, workspace_id: str, sent: Any, *, by: Actor = COMMAND_LINE) -> CreatedApiKey:
        """Make a key from what a caller sent, an object as `NewApiKey` describes; raises what `create` does."""
        fields = read_new_api_key(sent)
        expires_at_ms = None if fields.expires_at is None else parse_rfc3339(fields.expires_at)
        return await self.create(workspace_id, fields.name, fields.scopes, expires_at_ms, by=by)

    async def create(
        self,
        workspace_id: str,
        name: str | None,
        scopes: Collection[str],
        expires_at_ms: int | None = None,
        *,
        by: Actor = COMMAND_LINE,
    ) -> CreatedApiKey:
        """Make a key.

        Args:
            workspace_id: The tenant that it is for.
            name: Shown in lists, or None.
            scopes: Some of `SCOPES`.
            expires_at_ms: Unix milliseconds from which it is refused, or None.
            by: Who makes it.

        Raises:
            InvalidInputError: It names every wrong field; nothing is stored.
            QuotaError: The workspace has as many as it may.
            UnavailableError: The store is out of reach.
        """
        now_ms = self._clock.now_ms()
        problems: dict[str, str] = {}
        if not WORKSPACE_ID.fullmatch(workspace_id):
            problems["workspace_id"] = (
                "send 1 to 64 letters, digits, dots, hyphens and underscores, a letter, digit or underscore first"
            )
        if name is not None and not (0 < len(name) <= MAX_NAME_LENGTH and is_line(name)):
            problems["name"] = f"send 1 to {MAX_NAME_LENGTH} characters without control characters"
        if not scopes or not set(scopes) <= set(SCOPES):
            problems["scopes"] = f"send one or more of {', '.join(SCOPES)}"
        if expires_at_ms is not None and expires_at_ms <= now_ms:
            problems["expires_at"] = "is past; send a later time, or null for a key that doesn't expire"
        if problems:
            raise InvalidInputError(problems)
        plaintext = KEY_PREFIX + base64.urlsafe_b64encode(self._draw(_SECRET_BYTES)).decode("ascii").rstrip("=")
        key = ApiKey(
            id=new_id("key_", self._draw),
            workspace_id=workspace_id,
            name=name,
            scopes=frozenset(scopes),
            created_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
        )
        if not await self._store.insert(key, _hash(plaintext), at_most=self._most):
            raise QuotaError("API keys", self._most or 0, "DISPATCHER_MAX_API_KEYS_PER_WORKSPACE")
        await self._note(by, "api_key.create", key)
        return CreatedApiKey(key, plaintext)

    async def list(self, workspace_id: str | None) -> Sequence[ApiKey]:
        """Return the keys of a workspace (None: of all), newest first.

        Raises:
            UnavailableError: The store is out of reach.
        """
        return await self._store.list(workspace_id)

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ApiKey]:
        """Return one page of a workspace's keys, newest first.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: The store is out of reach.
        """
        return await self._store.page(workspace_id, cursor, limit)

    async def revoke(self, workspace_id: str | None, key_id: str, *, by: Actor = COMMAND_LINE) -> None:
        """Revoke a key of a workspace (None: of any); it is refused within a second everywhere.

        Raises:
            NotFoundError: There is no such key.
            ConflictError: It is the key that asks: its workspace might be left without an admin.
            UnavailableError: The store is out of reach.
        """
        if by.kind == KEY_ACTOR and by.id == key_id:
            raise ConflictError(
                "this is the API key that you call with; revoke it with another admin key, "
                f"or with: dispatcher api-keys revoke {key_id}"
            )
        key = await self._store.delete(workspace_id, key_id)
        if key is None:
            raise NotFoundError("there is no such API key in this workspace; list the keys to see those there are")
        await self._note(by, "api_key.revoke", key)
        self._found = {digest: found for digest, found in self._found.items() if found[1].id != key_id}

    def has_met(self, bearer: str) -> bool:
        """Say whether a bearer token was a valid key the last time that it was looked up, however long ago."""
        return _hash(bearer) in self._found

    async def authenticate(self, bearer: str) -> ApiKey:
        """Say whose key a bearer token is, and remember that it was used.

        Raises:
            UnauthorizedError: The key is unknown, revoked or expired.
            UnavailableError: The store is out of reach.
        """
        if not bearer.startswith(KEY_PREFIX):
            raise UnauthorizedError(f"this is no API key: one starts with {KEY_PREFIX}")
        return await self.recognise(_hash(bearer))

    async def recognise(self, digest: bytes) -> ApiKey:
        """Say whose key has a digest, as `digest_of` makes it, and remember that it was used; raises as above."""
        key = self._remembered(digest)
        if key is None:
            asked_at = self._clock.monotonic()
            key = await self._store.by_hash(digest)
            if key is None:
                raise UnauthorizedError(_UNKNOWN)
            if len(self._found) >= _CACHE_KEYS:
                self._found.clear()
            self._found[digest] = (asked_at, key)
        if key.expires_at_ms is not None and key.expires_at_ms <= self._clock.now_ms():
            raise UnauthorizedError("the API key has expired; make a new one")
        self._used.add(key.id)
        return key

    async def flush_last_used(self) -> None:
        """Write down which keys were used since the last call; what can't be written now is tried again then."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            await self._store.touch(used, self._clock.now_ms())
        except UnavailableError:
            self._used |= used

    async def _note(self, by: Actor, action: str, key: ApiKey) -> None:
        if self._audit is None:
            return
        expires_at = None if key.expires_at_ms is None else rfc3339(key.expires_at_ms)
        told = {"name": key.name, "scopes": sorted(key.scopes), "expires_at": expires_at}
        created = action == "api_key.create"
        changes = {name: (None, value) if created else (value, None) for name, value in told.items()}
        await self._audit.note(key.workspace_id, by, action, key.id, changes)

    def _remembered(self, digest: bytes) -> ApiKey | None:
        found = self._found.get(digest)
        if found is None:
            return None
        if self._clock.monotonic() - found[0] >= _CACHE_SECONDS:
            del self._found[digest]
            return None
        return found[1]


def _hash(plaintext: str) -> bytes:
    # A key holds 256 random bits: a slow password hash would add nothing but load.
    return hashlib.sha256(plaintext.encode("utf-8", "surrogateescape")).digest()
