"""Failing endpoints in MongoDB: one small document for each, and the claim by which one worker at a time deals with it.

```
_id  the webhook's id, or that and who disables it because it is gone
webhook_id, workspace_id, endpoint_revision
trouble          `failing` or `gone`
failing_since, last_failure_at
warned           whether the first half of the period was told of
claimed_at       by the server's clock, as those of the workers may differ; none where nobody deals with it
```
"""

from collections.abc import Sequence
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import DeleteOne, UpdateOne

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.endpoint_health import FailingEndpoint, HealthNote, Trouble
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document

BATCH_NOTES = 100

_LONGEST_RETRIED_MS = 7 * 86_400_000
"""How long before a success its delivery can have begun: 20 attempts of the longest tier, and some waiting."""


class MongoEndpointHealth:
    """Keeps the failing endpoints; implements `dispatcher.ports.EndpointHealthStore`.

    Every method raises `UnavailableError` where MongoDB is out of reach.

    Args:
        health: The collection; majority reads and writes.
        deliveries: The delivery log.
    """

    def __init__(self, health: Collection, deliveries: Collection) -> None:
        self._health = health
        self._deliveries = deliveries

    async def note(self, notes: Sequence[HealthNote]) -> None:
        """Write down what a worker saw; safe to be repeated."""
        for start in range(0, len(notes), BATCH_NOTES):
            changes: list[Any] = []
            for note in notes[start : start + BATCH_NOTES]:
                if note.succeeded_at_ms is not None:
                    changes.append(DeleteOne(_ended_by(note, note.succeeded_at_ms)))
                if note.first_failure_ms is not None:
                    changes.append(
                        UpdateOne({"_id": note.webhook_id}, _failure(note, note.first_failure_ms), upsert=True)
                    )
            with unavailable_errors():
                await self._health.bulk_write(changes)

    async def load(self) -> Sequence[FailingEndpoint]:
        """Return all that is known."""
        with unavailable_errors():
            return [_endpoint_of(stored) async for stored in self._health.find()]

    async def claim(self, endpoint: FailingEndpoint, taken_over_after_ms: int) -> bool:
        """Take it upon oneself to deal with an endpoint; False where another does, or where it isn't as it was."""
        free = {"$lt": ["$claimed_at", {"$subtract": ["$$NOW", taken_over_after_ms]}]}
        where = _same(endpoint) | {"$or": [{"claimed_at": None}, {"$expr": free}]}
        with unavailable_errors():
            result = await self._health.update_one(where, [{"$set": {"claimed_at": "$$NOW"}}])
        return bool(result.matched_count)

    async def announce_gone(self, endpoint: FailingEndpoint) -> None:
        """Note that a webhook is about to be disabled as its endpoint is gone: claimed, under a key of the caller's."""
        document = {
            "webhook_id": endpoint.webhook_id,
            "workspace_id": endpoint.workspace_id,
            "endpoint_revision": endpoint.endpoint_revision,
            "trouble": Trouble.GONE.value,
            "failing_since": DatetimeMS(endpoint.failing_since_ms),
            "last_failure_at": DatetimeMS(endpoint.last_failure_ms),
            "warned": False,
        }
        literal: Document = {name: {"$literal": value} for name, value in document.items()}
        with unavailable_errors():
            await self._health.update_one(
                {"_id": endpoint.key}, [{"$set": literal | {"claimed_at": "$$NOW"}}], upsert=True
            )

    async def set_warned(self, endpoint: FailingEndpoint) -> None:
        """Note that its first half was told of; the claim ends."""
        with unavailable_errors():
            await self._health.update_one(_same(endpoint), {"$set": {"warned": True, "claimed_at": None}})

    async def forget(self, endpoint: FailingEndpoint) -> None:
        """Know nothing of it any more, unless it failed anew with another revision or after a success."""
        with unavailable_errors():
            await self._health.delete_one(_same(endpoint))

    async def delivered_since(self, endpoint: FailingEndpoint) -> bool:
        """Say whether the delivery log has a success since it fails, which nobody noted (in a crash, say)."""
        since_ms = endpoint.failing_since_ms
        where = {
            "s": endpoint.webhook_id,
            "st": DeliveryStatus.DELIVERED.value,
            "c": {"$gte": DatetimeMS(since_ms - _LONGEST_RETRIED_MS)},
            "u": {"$gt": DatetimeMS(since_ms)},
        }
        with unavailable_errors():
            return await self._deliveries.find_one(where, {"_id": 1}) is not None


def _ended_by(note: HealthNote, succeeded_at_ms: int) -> Document:
    return {
        "_id": note.webhook_id,
        "endpoint_revision": {"$lte": note.endpoint_revision},
        "failing_since": {"$lte": DatetimeMS(succeeded_at_ms)},
    }


def _failure(note: HealthNote, first_ms: int) -> list[Document]:
    """Return the update that adds failures: of an older revision they count nothing, of a newer one they begin anew."""
    first, last = DatetimeMS(first_ms), DatetimeMS(note.last_failure_ms)
    stored = {"$ifNull": ["$endpoint_revision", 0]}
    begun: Document = {
        "webhook_id": note.webhook_id,
        "workspace_id": note.workspace_id,
        "endpoint_revision": note.endpoint_revision,
        "trouble": Trouble.FAILING.value,
        "failing_since": first,
        "last_failure_at": last,
        "warned": False,
        "claimed_at": None,
    }
    begun = {"_id": "$_id"} | {name: {"$literal": value} for name, value in begun.items()}
    added = {
        "failing_since": {"$min": ["$failing_since", first]},
        "last_failure_at": {"$max": ["$last_failure_at", last]},
    }
    branches = [
        {"case": {"$lt": [stored, note.endpoint_revision]}, "then": begun},
        {"case": {"$eq": [stored, note.endpoint_revision]}, "then": {"$mergeObjects": ["$$ROOT", added]}},
    ]
    return [{"$replaceWith": {"$switch": {"branches": branches, "default": "$$ROOT"}}}]


def _same(endpoint: FailingEndpoint) -> Document:
    return {
        "_id": endpoint.key or endpoint.webhook_id,
        "endpoint_revision": endpoint.endpoint_revision,
        "failing_since": DatetimeMS(endpoint.failing_since_ms),
        "warned": endpoint.warned,
    }


def _endpoint_of(stored: Document) -> FailingEndpoint:
    return FailingEndpoint(
        stored["webhook_id"],
        stored["workspace_id"],
        stored["endpoint_revision"],
        int(stored["failing_since"]),
        int(stored["last_failure_at"]),
        stored["warned"],
        Trouble(stored["trouble"]),
        stored["_id"],
    )
