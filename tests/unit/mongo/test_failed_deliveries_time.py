# ruff: noqa: D102 - the collection's methods are MongoDB's
"""What is said where MongoDB takes too long to look through dead letters."""

import pytest
from pymongo.errors import ExecutionTimeout

from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.errors import UnavailableError
from dispatcher.mongo.failed_deliveries import MAX_SECONDS, MongoFailedDeliveries


class SlowCollection:
    """A collection whose every answer takes too long; knows how long it may take."""

    def __init__(self):
        self.most_ms = None

    def find(self, *_query, **_options):
        return self

    def sort(self, *_fields):
        return self

    limit = sort

    def max_time_ms(self, most_ms):
        self.most_ms = most_ms
        return self

    def aggregate(self, _stages, *, maxTimeMS, **_options):  # noqa: N803 - as MongoDB spells it
        self.most_ms = maxTimeMS
        return self

    async def to_list(self, *, length):
        raise ExecutionTimeout(f"operation exceeded time limit, {length}", 50)


@pytest.mark.parametrize("asks", ["page", "summary"])
async def test_who_asks_for_too_much_is_told_to_ask_for_less(asks):
    """Pages and counts are bounded in time; where that is too short, the API's caller reads how to ask for less."""
    slow = SlowCollection()
    store = MongoFailedDeliveries(slow)
    with pytest.raises(UnavailableError) as caught:
        await (
            store.page("acme", FailedFilter(), None, 10) if asks == "page" else store.summary("acme", FailedFilter())
        )
    assert slow.most_ms == MAX_SECONDS * 1000
    assert "with since and until" in caught.value.shown
