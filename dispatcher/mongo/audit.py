"""The changes that were made, in MongoDB; a TTL index forgets them after `AUDIT_DAYS`."""

from typing import Any

from bson.datetime_ms import DatetimeMS

from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.cursors import after, encode_cursor
from dispatcher.ports import Actor, AuditEntry, AuditFilter, Page

_NEWEST_FIRST = [("at", -1), ("_id", -1)]


class MongoAudit:
    """Keeps the changes; implements `dispatcher.ports.AuditStore`.

    Args:
        audit: The collection; majority reads and writes.
    """

    def __init__(self, audit: Collection) -> None:
        self._audit = audit

    async def insert(self, entry: AuditEntry) -> None:
        """Store an entry.

        Raises:
            UnavailableError: MongoDB is out of reach; it may or may not have been stored.
        """
        document = {
            "_id": entry.id,
            "workspace_id": entry.workspace_id,
            "at": DatetimeMS(entry.at_ms),
            "actor": {"kind": entry.actor.kind, "id": entry.actor.id, "name": entry.actor.name},
            "action": entry.action,
            "target_id": entry.target_id,
            # A list: names of fields, and so of headers, may hold what MongoDB takes for a path.
            "changes": [[name, before, now] for name, (before, now) in entry.changes.items()],
        }
        with unavailable_errors():
            await self._audit.insert_one(document)

    async def page(self, workspace_id: str, wanted: AuditFilter, cursor: str | None, limit: int) -> Page[AuditEntry]:
        """Return one page of a workspace's changes, newest first; stays right while changes are added.

        Args:
            workspace_id: The tenant.
            wanted: What to list; `since_ms` is the first millisecond that counts, `until_ms` the first that doesn't.
            cursor: Where the page before ended; None for the first.
            limit: Rows, at least 1.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: MongoDB is out of reach.
        """
        query: Document = {"workspace_id": workspace_id, **_conditions(wanted)}
        if cursor is not None:
            query |= after(cursor, time_field="at")
        with unavailable_errors():
            found = self._audit.find(query).sort(_NEWEST_FIRST).limit(limit + 1)
            rows = [_entry_of(stored) for stored in await found.to_list(length=None)]
        more, rows = len(rows) > limit, rows[:limit]
        return Page(rows, encode_cursor(rows[-1].at_ms, rows[-1].id) if more else None)


def _conditions(wanted: AuditFilter) -> Document:
    conditions: Document = {}
    if wanted.action is not None:
        conditions["action"] = wanted.action
    if wanted.target_id is not None:
        conditions["target_id"] = wanted.target_id
    span = {}
    if wanted.since_ms is not None:
        span["$gte"] = DatetimeMS(wanted.since_ms)
    if wanted.until_ms is not None:
        span["$lt"] = DatetimeMS(wanted.until_ms)
    if span:
        conditions["at"] = span
    return conditions


def _entry_of(stored: dict[str, Any]) -> AuditEntry:
    actor = stored["actor"]
    return AuditEntry(
        id=stored["_id"],
        workspace_id=stored["workspace_id"],
        at_ms=int(stored["at"]),
        actor=Actor(actor["kind"], actor["id"], actor["name"]),
        action=stored["action"],
        target_id=stored["target_id"],
        changes={name: (before, now) for name, before, now in stored["changes"]},
    )
