"""The delivery log's reader: pages of deliveries, and one delivery with its attempts.

Newest first by the time of the earliest step, then by id. That time is the least of all steps', so that it doesn't
depend on the order of writes; when an older step is written late, its delivery moves back in the listing, and one
who is paging just then may meet it twice. The log's retention counts from it too.
"""

from typing import Any

from bson.datetime_ms import DatetimeMS

from dispatcher.core.delivery_log import LoggedDelivery, shown
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection
from dispatcher.mongo.cursors import after, encode_cursor
from dispatcher.mongo.delivery_documents import WITHOUT_BODIES, delivery_of
from dispatcher.ports import DeliveryFilter, Page

_NEWEST_FIRST = [("c", -1), ("_id", -1)]


class MongoDeliveryPages:
    """Reads the delivery log; implements `dispatcher.ports.DeliveryLogReader`.

    Args:
        deliveries: The collection.
    """

    def __init__(self, deliveries: Collection) -> None:
        self._deliveries = deliveries

    async def page(
        self, workspace_id: str, subscription_id: str, wanted: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        """Return one page of a subscription's deliveries, newest first, attempts left out.

        Args:
            workspace_id: The tenant.
            subscription_id: `wh_…`.
            wanted: What to list; `since_ms` is the first millisecond that counts, `until_ms` the first that doesn't.
            cursor: Where the page before ended; None for the first.
            limit: Rows, at least 1.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: MongoDB is out of reach.
        """
        query = {"s": subscription_id, "w": workspace_id} | _conditions(wanted)
        if cursor is not None:
            query |= after(cursor, time_field="c")
        with unavailable_errors():
            found = self._deliveries.find(query, WITHOUT_BODIES).sort(_NEWEST_FIRST).limit(limit + 1)
            rows = [shown(delivery_of(stored)) for stored in await found.to_list(length=None)]
        for row in rows:
            row.attempts = []
        more, rows = len(rows) > limit, rows[:limit]
        return Page(rows, encode_cursor(rows[-1].created_at_ms, rows[-1].delivery_id) if more else None)

    async def get(self, workspace_id: str, subscription_id: str, delivery_id: str) -> LoggedDelivery | None:
        """Return one delivery with its attempts, by run and number, or None.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            stored = await self._deliveries.find_one({"_id": delivery_id, "w": workspace_id, "s": subscription_id})
        return None if stored is None else shown(delivery_of(stored))

    async def find(self, delivery_id: str) -> LoggedDelivery | None:
        """Return one delivery of whatever workspace, or None: for operators, who see all; otherwise like `get`."""
        with unavailable_errors():
            stored = await self._deliveries.find_one({"_id": delivery_id})
        return None if stored is None else shown(delivery_of(stored))


def _conditions(wanted: DeliveryFilter) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    if wanted.status is not None:
        conditions["st"] = wanted.status
    if wanted.event_type is not None:
        conditions["g.y"] = wanted.event_type
    span = {}
    if wanted.since_ms is not None:
        span["$gte"] = DatetimeMS(wanted.since_ms)
    if wanted.until_ms is not None:
        span["$lt"] = DatetimeMS(wanted.until_ms)
    if span:
        conditions["c"] = span
    return conditions
