"""API keys in MongoDB: hashes only, never a key."""

import hmac
from collections.abc import Iterable, Sequence
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from dispatcher.core.errors import ConflictError
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.cursors import after, encode_cursor
from dispatcher.mongo.quotas import insert_within
from dispatcher.ports import ApiKey, Page

_NEWEST_FIRST = [("created_at", -1), ("_id", -1)]


class MongoApiKeys:
    """Keeps API keys; implements `dispatcher.ports.ApiKeyStore`.

    Args:
        api_keys: The collection; majority reads and writes, so that a revoked key is refused everywhere at once.
    """

    def __init__(self, api_keys: Collection) -> None:
        self._api_keys = api_keys

    async def insert(self, key: ApiKey, secret_hash: bytes, *, at_most: int | None = None) -> bool:
        """Store a new key.

        Args:
            key: All but its secret part.
            secret_hash: SHA-256 of the key's text, 32 bytes.
            at_most: How many its workspace may have; None: any number.

        Returns:
            False where it has as many already: nothing is stored.

        Raises:
            ConflictError: The id or the hash is there already.
            UnavailableError: MongoDB is out of reach.
        """
        document = {
            "_id": key.id,
            "workspace_id": key.workspace_id,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "hash": secret_hash,
            "created_at": DatetimeMS(key.created_at_ms),
            "last_used_at": _date(key.last_used_at_ms),
            "expires_at": _date(key.expires_at_ms),
        }
        with unavailable_errors():
            try:
                return await insert_within(self._api_keys, document, at_most)
            except DuplicateKeyError:
                raise ConflictError("this API key exists already; create another one") from None

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """Return the key with this hash, expired or not, or None.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            stored = await self._api_keys.find_one({"hash": secret_hash})
        # The index has compared already; this comparison's time says nothing of how much of a hash was right.
        if stored is None or not hmac.compare_digest(stored["hash"], secret_hash):
            return None
        return _key_of(stored)

    async def list(self, workspace_id: str | None) -> Sequence[ApiKey]:
        """Return the keys of a workspace (None: of all), newest first.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            found = self._api_keys.find(_of(workspace_id)).sort(_NEWEST_FIRST)
            return [_key_of(stored) for stored in await found.to_list(length=None)]

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ApiKey]:
        """Return one page of a workspace's keys, newest first; stays right while keys are added.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: MongoDB is out of reach.
        """
        query = _of(workspace_id)
        if cursor is not None:
            query |= after(cursor, time_field="created_at")
        with unavailable_errors():
            found = self._api_keys.find(query).sort(_NEWEST_FIRST).limit(limit + 1)
            rows = [_key_of(stored) for stored in await found.to_list(length=None)]
        more, rows = len(rows) > limit, rows[:limit]
        return Page(rows, encode_cursor(rows[-1].created_at_ms, rows[-1].id) if more else None)

    async def delete(self, workspace_id: str | None, key_id: str) -> ApiKey | None:
        """Revoke a key (workspace None: of any) and return what it was; None where there is none.

        Raises:
            UnavailableError: MongoDB is out of reach; it may or may not have been revoked.
        """
        with unavailable_errors():
            stored = await self._api_keys.find_one_and_delete({"_id": key_id} | _of(workspace_id))
        return None if stored is None else _key_of(stored)

    async def touch(self, key_ids: Iterable[str], now_ms: int) -> None:
        """Note that keys were used, in one write; an older time never replaces a later one.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        wanted = sorted(set(key_ids))
        if wanted:
            with unavailable_errors():
                used = {"$max": {"last_used_at": DatetimeMS(now_ms)}}
                await self._api_keys.update_many({"_id": {"$in": wanted}}, used)


def _of(workspace_id: str | None) -> Document:
    return {} if workspace_id is None else {"workspace_id": workspace_id}


def _key_of(stored: dict[str, Any]) -> ApiKey:
    return ApiKey(
        id=stored["_id"],
        workspace_id=stored["workspace_id"],
        name=stored["name"],
        scopes=frozenset(stored["scopes"]),
        created_at_ms=int(stored["created_at"]),
        last_used_at_ms=_milliseconds(stored["last_used_at"]),
        expires_at_ms=_milliseconds(stored["expires_at"]),
    )


def _date(milliseconds: int | None) -> DatetimeMS | None:
    return None if milliseconds is None else DatetimeMS(milliseconds)


def _milliseconds(date: DatetimeMS | None) -> int | None:
    return None if date is None else int(date)
