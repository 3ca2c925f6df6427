"""Counts and measures over the delivery log, for plots.

Counting reads the index `list` alone; durations and waiting deliveries are read from a bounded number of documents,
the latter through an index that has nothing else. Each query may take `MAX_QUERY_MS`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from bson.datetime_ms import DatetimeMS
from pymongo.errors import ExecutionTimeout

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import UnavailableError
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.ports import WaitingDelivery

MAX_QUERY_MS = 3_000
MAX_AT_ONCE = 8
"""As many queries of one process run at once."""

_INDEX = "list"
_WAITING_INDEX = "waiting"
_WAITING = [DeliveryStatus.RETRYING.value, DeliveryStatus.PENDING.value]
_TOO_MUCH = "There are too many deliveries to go through in time. Choose a shorter time."

# Delivery ids are hashes: those below a bound are a fair part of any webhook's deliveries, whatever became of them.
_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_BOUND_DIGITS = 8


class MongoDeliveryStatistics:
    """Reads the delivery log; implements `dispatcher.ports.DeliveryStatistics`.

    Args:
        deliveries: The collection.
    """

    def __init__(self, deliveries: Collection) -> None:
        self._deliveries = deliveries
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def counts(
        self, subscription_ids: Sequence[str], since_ms: int, until_ms: int, bucket_ms: int
    ) -> Mapping[int, Mapping[str, int]]:
        """See `DeliveryStatistics`."""
        at = {"$toLong": "$c"}
        bucket = {"$subtract": [at, {"$mod": [{"$subtract": [at, since_ms]}, bucket_ms]}]}
        pipeline: list[Document] = [
            {"$match": _created(subscription_ids, since_ms, until_ms)},
            {"$project": {"_id": 0, "c": 1, "st": 1}},
            {"$group": {"_id": {"b": bucket, "st": "$st"}, "n": {"$sum": 1}}},
        ]
        found: dict[int, dict[str, int]] = defaultdict(dict)
        async with self._room:
            with _bounded():
                rows = self._deliveries.aggregate(pipeline, hint=_INDEX, maxTimeMS=MAX_QUERY_MS)
                async for row in rows:
                    found[int(row["_id"]["b"])][row["_id"]["st"]] = int(row["n"])
        return found

    async def durations(
        self, subscription_ids: Sequence[str], since_ms: int, until_ms: int, part: float, limit: int
    ) -> Sequence[float]:
        """See `DeliveryStatistics`."""
        query = _created(subscription_ids, since_ms, until_ms) | _chosen(part)
        async with self._room:
            with _bounded():
                found = self._deliveries.find(query, {"_id": 0, "a.n": 1, "a.d": 1}).hint(_INDEX).limit(limit)
                rows = await found.max_time_ms(MAX_QUERY_MS).to_list(length=None)
        return [float(step["d"]) for row in rows for step in row["a"] if step["n"]]

    async def waiting(self, subscription_ids: Sequence[str], since_ms: int, limit: int) -> Sequence[WaitingDelivery]:
        """See `DeliveryStatistics`."""
        query = {
            "s": {"$in": list(subscription_ids)},
            "c": {"$gte": DatetimeMS(since_ms)},
            "st": {"$in": _WAITING},
        }
        fields = {"_id": 0, "m": 1, "a.at": 1, "a.nx": 1, "a.n": 1, "a.r": 1}
        async with self._room:
            with _bounded():
                found = self._deliveries.find(query, fields).hint(_WAITING_INDEX).limit(limit)
                rows = await found.max_time_ms(MAX_QUERY_MS).to_list(length=None)
        return [_waiting(row) for row in rows]


def _created(subscription_ids: Sequence[str], since_ms: int, until_ms: int) -> Document:
    # Without the workspace, which isn't in the index: a subscription belongs to exactly one.
    span = {"$gte": DatetimeMS(since_ms), "$lt": DatetimeMS(until_ms)}
    return {"s": {"$in": list(subscription_ids)}, "c": span}


def _chosen(part: float) -> Document:
    """Return the condition that one part of all delivery ids fulfils, evenly spread."""
    if part >= 1:
        return {}
    left, digits = int(part * len(_DIGITS) ** _BOUND_DIGITS), ""
    for _ in range(_BOUND_DIGITS):
        left, digit = divmod(left, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return {"_id": {"$lt": f"del_{digits}"}}


def _waiting(row: Document) -> WaitingDelivery:
    last = row["a"][-1]
    due = last.get("nx")
    if due is None:
        return WaitingDelivery(int(row["m"]), None, None)
    return WaitingDelivery(int(row["m"]), int(due) - int(last["at"]), int(due))


@contextmanager
def _bounded() -> Iterator[None]:
    try:
        with unavailable_errors():
            yield
    except UnavailableError as error:
        if isinstance(error.__cause__, ExecutionTimeout):
            raise UnavailableError(str(error), shown=_TOO_MUCH) from error
        raise
