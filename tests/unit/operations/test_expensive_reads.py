# ruff: noqa: D102 - what they do is said by their names
"""What goes through very many deliveries: a bounded number at once, so that no workspace keeps the others out."""

import asyncio

import pytest

from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.errors import TooManyRequestsError
from dispatcher.core.retry import DEFAULT_TIERS
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.gates import Gate
from dispatcher.operations.overview import Overviews
from tests.fakes.api_stack import START_MS, ManualClock
from tests.fakes.console_stack import MemoryStatistics
from tests.fakes.stores import MemoryDeliveryLogReader, MemoryFailedDeliveries, MemoryWebhookStore, Outage


class SlowCounts(MemoryFailedDeliveries):
    """Counts and marks that end when they are let."""

    def __init__(self):
        super().__init__(MemoryDeliveryLogReader())
        self.going, self.most, self.release = [], 0, asyncio.Event()

    async def _slow(self, workspace_id):
        self.going.append(workspace_id)
        self.most = max(self.most, len(self.going))
        await self.release.wait()
        self.going.remove(workspace_id)

    async def summary(self, workspace_id, wanted):
        await self._slow(workspace_id)
        return await super().summary(workspace_id, wanted)

    async def handle(self, workspace_id, wanted, now_ms):
        await self._slow(workspace_id)
        return await super().handle(workspace_id, wanted, now_ms)


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["summary", "purge"])
async def test_fifty_counts_of_one_workspace_leave_room_for_another_s(how):
    """Two run, a few wait, the rest is refused; a neighbour's runs at once."""
    store = SlowCounts()
    letters = DeadLetters(store, None, ManualClock(), reads=Gate("counts", each=2, together=8, waiting=8))

    def ask(workspace):
        if how == "summary":
            return asyncio.create_task(letters.summary(workspace, FailedFilter()))
        return asyncio.create_task(letters.purge(workspace, {"reason": "gone"}))

    tasks = [ask("acme") for _ in range(50)]
    await turns()
    assert store.going == ["acme", "acme"]
    neighbour = ask("globex")
    await turns()
    assert store.going == ["acme", "acme", "globex"]
    store.release.set()
    await neighbour
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, TooManyRequestsError) for each in results) == 40


async def test_an_overview_that_many_look_at_is_made_once():
    """Whoever comes while it is made waits for the same one."""
    statistics = MemoryStatistics(Outage())
    overviews = Overviews(
        MemoryWebhookStore(),
        statistics,
        ManualClock(),
        DEFAULT_TIERS,
        reads=Gate("plots", each=1, together=1, waiting=20),
    )
    made = await asyncio.gather(*(overviews.of("acme", "1h") for _ in range(10)))
    assert len(statistics.asked) == 1
    assert all(each is made[0] for each in made)


async def test_one_overview_asks_few_questions_at_a_time():
    """A long time's plots never have more than two of the queries of this process."""
    now, most = 0, 0

    class Slow(MemoryStatistics):
        async def durations(self, *args):
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return await super().durations(*args)

    statistics = Slow(Outage())
    statistics.found = {START_MS - minute * 60_000: {"delivered": 1} for minute in range(30)}
    await Overviews(MemoryWebhookStore(), statistics, ManualClock(), DEFAULT_TIERS).of("acme", "1h")
    assert most == 2
