"""Which logged deliveries a replay job is about; oldest first, so that they go out in the order they came."""

from collections.abc import Sequence

from bson.datetime_ms import DatetimeMS

from dispatcher.core.delivery_log import LoggedDelivery, shown
from dispatcher.core.reruns import ReplayJob, ReplaySource
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.delivery_documents import WITHOUT_BODIES, delivery_of
from dispatcher.mongo.failed_deliveries import failed_conditions, index_of

_OLDEST_FIRST = [("c", 1), ("_id", 1)]


class MongoReplaySelection:
    """Reads the delivery log for replay jobs; implements `dispatcher.ports.ReplaySelection`.

    Args:
        deliveries: The collection.
    """

    def __init__(self, deliveries: Collection) -> None:
        self._deliveries = deliveries

    async def count(self, job: ReplayJob) -> int:
        """Return how many deliveries the job is about.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            hint = _index_of(job)
            options: Document = {} if hint is None else {"hint": hint}
            return await self._deliveries.count_documents(_span(job), **options)

    async def next(self, job: ReplayJob, limit: int) -> Sequence[LoggedDelivery]:
        """Return those behind the job's cursor, attempts left out.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        query = _span(job)
        if job.cursor is not None:
            at = DatetimeMS(job.cursor[0])
            # The first condition bounds the index scan; the second keeps rows of the same millisecond apart.
            query["c"]["$gte"] = at
            query["$or"] = [{"c": {"$gt": at}}, {"_id": {"$gt": job.cursor[1]}}]
        return await self._read(query, limit, _index_of(job))

    async def in_hand(self, job: ReplayJob) -> Sequence[LoggedDelivery]:
        """Return those that the job has in hand, whatever became of them meanwhile, attempts left out.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        owner = {"w": job.workspace_id} | ({"s": job.subscription_id} if job.subscription_id else {})
        return await self._read(owner | {"_id": {"$in": list(job.in_hand)}}, len(job.in_hand))

    async def _read(self, query: Document, limit: int, index: str | None = None) -> Sequence[LoggedDelivery]:
        with unavailable_errors():
            found = self._deliveries.find(query, WITHOUT_BODIES, hint=index).sort(_OLDEST_FIRST).limit(limit)
            rows = [shown(delivery_of(stored)) for stored in await found.to_list(length=None)]
        for row in rows:
            row.attempts = []
        return rows


def _index_of(job: ReplayJob) -> str | None:
    return index_of(job.dead_letters) if job.source is ReplaySource.DEAD_LETTERS else None


def _span(job: ReplayJob) -> Document:
    if job.source is ReplaySource.DEAD_LETTERS:
        return failed_conditions(job.workspace_id, job.dead_letters)
    query: Document = {
        "s": job.subscription_id,
        "w": job.workspace_id,
        "c": {"$gte": DatetimeMS(job.since_ms), "$lt": DatetimeMS(job.until_ms)},
        "g.x": False,
    }
    if job.wanted is not None:
        query["st"] = job.wanted.value
    return query
