"""The failed deliveries of the delivery log that nobody has dealt with: a workspace's dead letters.

A delivery is handled from when somebody says so until it runs again: the mark names the run that failed, and the merge
of a later run's steps drops it (see `dispatcher.mongo.delivery_documents`). Test events are no dead letters.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import ExecutionTimeout

from dispatcher.core.dead_letters import statuses
from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter, LoggedDelivery, shown
from dispatcher.core.errors import UnavailableError
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.cursors import after, encode_cursor
from dispatcher.mongo.delivery_documents import WITHOUT_BODIES, delivery_of
from dispatcher.ports import FailedCount, FailedSummary, Handled, Page

MAX_SUMMED_UP = 100_000
"""So many are counted at most, the newest ones: measured, 2.5 s on two busy cores."""
MAX_VALUES = 100
MAX_HANDLED = 10_000
"""So many are marked by one call."""

MAX_SECONDS = 15
"""For so long MongoDB looks for a page, or counts: a filter may want few of very many."""

_BATCH = 1_000
_NEWEST_FIRST = [("c", -1), ("_id", -1)]
# The greatest step says where the delivery stands, as in the merging update.
_STANDING = {"$max": "$a"}


class MongoFailedDeliveries:
    """Reads and marks failed deliveries; implements `dispatcher.ports.FailedDeliveries`.

    Every method raises `UnavailableError` where MongoDB is out of reach.

    Args:
        deliveries: The collection; majority reads and writes.
    """

    def __init__(self, deliveries: Collection) -> None:
        self._deliveries = deliveries

    async def page(
        self, workspace_id: str, wanted: FailedFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        """Return one page, newest first, attempts left out.

        Raises:
            InvalidInputError: The cursor is none of ours.
        """
        query = failed_conditions(workspace_id, wanted)
        if cursor is not None:
            query |= after(cursor, time_field="c")
        with unavailable_errors(), _in_time():
            found = self._deliveries.find(query, WITHOUT_BODIES, hint=index_of(wanted)).sort(_NEWEST_FIRST)
            found = found.limit(limit + 1).max_time_ms(MAX_SECONDS * 1000)
            rows = [_row_of(stored) for stored in await found.to_list(length=None)]
        for row in rows:
            row.attempts = []
        more, rows = len(rows) > limit, rows[:limit]
        return Page(rows, encode_cursor(rows[-1].created_at_ms, rows[-1].delivery_id) if more else None)

    async def summary(self, workspace_id: str, wanted: FailedFilter) -> FailedSummary:
        """Count them, by each of what they can be told apart by; of more than `MAX_SUMMED_UP`, the newest."""
        stages: list[Document] = [
            {"$match": failed_conditions(workspace_id, wanted)},
            {"$sort": dict(_NEWEST_FIRST)},
            {"$limit": MAX_SUMMED_UP},
            {"$project": {"s": 1, "y": "$g.y", "c": 1, "last": _STANDING}},
            {
                "$facet": {
                    "total": [{"$count": "n"}],
                    "webhook": _counted("$s"),
                    "type": _counted("$y"),
                    "reason": _counted("$last.x"),
                    "response_code": _counted("$last.c"),
                    "hour": [
                        {"$group": {"_id": {"$dateTrunc": {"date": "$c", "unit": "hour"}}, "n": {"$sum": 1}}},
                        {"$sort": {"_id": -1}},
                        {"$limit": MAX_VALUES},
                    ],
                }
            },
        ]
        with unavailable_errors(), _in_time():
            counted = self._deliveries.aggregate(stages, hint=index_of(wanted), maxTimeMS=MAX_SECONDS * 1000)
            (found,) = await counted.to_list(length=None)
        total = found["total"][0]["n"] if found["total"] else 0
        return FailedSummary(
            total=total,
            complete=total < MAX_SUMMED_UP,
            by_webhook=_counts(found["webhook"]),
            by_type=_counts(found["type"]),
            by_reason=_counts(found["reason"]),
            by_response_code=_counts(found["response_code"]),
            by_hour_ms=[FailedCount(int(row["_id"]), row["n"]) for row in found["hour"]],
        )

    async def get(self, workspace_id: str, delivery_id: str) -> LoggedDelivery | None:
        """Return one with its attempts, handled or not; None where it isn't failed."""
        query = {"_id": delivery_id, "w": workspace_id, "st": DeliveryStatus.FAILED.value, "g.x": False}
        with unavailable_errors():
            stored = await self._deliveries.find_one(query)
        return None if stored is None else _row_of(stored)

    async def handle(
        self, workspace_id: str, wanted: FailedFilter, now_ms: int, *, letters_too: bool = False
    ) -> Handled:
        """Mark up to `MAX_HANDLED` of them as handled, the newest first; one that runs again meanwhile is not.

        Args:
            workspace_id: The tenant.
            wanted: Which ones.
            now_ms: Unix milliseconds.
            letters_too: Whether their letters on the dead-letter topic are marked by the caller.
        """
        count = 0
        query = failed_conditions(workspace_id, wanted)
        with unavailable_errors():
            while True:
                found = self._deliveries.find(query, {"_id": 1}, hint=index_of(wanted)).sort(_NEWEST_FIRST)
                found = found.limit(_BATCH)
                ids = [row["_id"] for row in await found.to_list(length=None)]
                if not ids or count >= MAX_HANDLED:
                    return Handled(count, more=bool(ids))
                mark = {"$set": {"h": {"l": letters_too, "r": "$r", "at": DatetimeMS(now_ms)}}}
                result = await self._deliveries.update_many(query | {"_id": {"$in": ids}}, [mark])
                count += result.modified_count

    async def handled_alone(self) -> AsyncIterator[str]:
        """Yield the deliveries of all workspaces that were marked here and not on the dead-letter topic."""
        # Objects compare field by field: these bounds are those of the marks whose `l` is false.
        alone = {"$gte": {"l": False}, "$lt": {"l": True}}
        query = {"w": {"$gte": ""}, "st": DeliveryStatus.FAILED.value, "h": alone}
        with unavailable_errors():
            async for stored in self._deliveries.find(query, {"_id": 1}, hint="dead_letters"):
                yield stored["_id"]

    async def reruns(self, after: str = "") -> AsyncIterator[tuple[str, str]]:
        """Yield the deliveries of all workspaces that were sent again, or backfilled, in a run that sorts behind one.

        Yields:
            Delivery id, and its latest run: what it was in an earlier one is past.
        """
        with unavailable_errors():
            query = {"r": {"$gt": after}}
            async for stored in self._deliveries.find(query, {"r": 1}, hint="reruns").batch_size(_BATCH):
                yield stored["_id"], stored["r"]


@contextmanager
def _in_time() -> Iterator[None]:
    """Tell the caller what to do where MongoDB would take too long."""
    try:
        yield
    except ExecutionTimeout as error:
        told = (
            f"looking through this workspace's dead letters takes longer than {MAX_SECONDS} s; "
            "ask for fewer, with since and until, or for those of one subscription"
        )
        raise UnavailableError(told, shown=told) from error


def index_of(wanted: FailedFilter) -> str:
    """Return the index to walk: left to itself, MongoDB may take that of the times, which is the whole log's."""
    return "dead_letters" if wanted.delivery_ids is None else "_id_"


def failed_conditions(workspace_id: str, wanted: FailedFilter) -> Document:
    """Return the query of a workspace's failed deliveries that nobody has handled, for `index_of`."""
    # No mark and null are one to the index.
    conditions: Document = {"w": workspace_id, "st": DeliveryStatus.FAILED.value, "h": None, "g.x": False}
    if wanted.subscription_id is not None:
        conditions["s"] = wanted.subscription_id
    if wanted.event_type is not None:
        conditions["g.y"] = wanted.event_type
    if wanted.delivery_ids is not None:
        conditions["_id"] = {"$in": list(wanted.delivery_ids)}
    ends: list[Document] = []
    if wanted.reason is not None:
        ends.append({"$eq": ["$$last.x", {"$literal": wanted.reason}]})
    if wanted.response_code is not None:
        codes = statuses(wanted.response_code)
        ends += [{"$gte": ["$$last.c", codes.start]}, {"$lt": ["$$last.c", codes.stop]}]
    if ends:
        conditions["$expr"] = {"$let": {"vars": {"last": _STANDING}, "in": {"$and": ends}}}
    span: Document = {}
    if wanted.since_ms is not None:
        span["$gte"] = DatetimeMS(wanted.since_ms)
    if wanted.until_ms is not None:
        span["$lt"] = DatetimeMS(wanted.until_ms)
    if span:
        conditions["c"] = span
    return conditions


def _counted(field: str) -> list[Document]:
    return [{"$group": {"_id": field, "n": {"$sum": 1}}}, {"$sort": {"n": -1, "_id": 1}}, {"$limit": MAX_VALUES}]


def _counts(rows: list[Document]) -> list[FailedCount[Any]]:
    return [FailedCount(row["_id"], row["n"]) for row in rows]


def _row_of(stored: Document) -> LoggedDelivery:
    row, mark = shown(delivery_of(stored)), stored.get("h")
    row.handled_at_ms = None if mark is None else int(mark["at"])
    return row
