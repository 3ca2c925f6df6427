# ruff: noqa: D102 - what they do is said by their names
"""What goes through very many deliveries: a bounded number at once, so that no workspace keeps the others out."""

import asyncio

import pytest

from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.errors import TooManyRequestsError
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.gates import Gate
from tests.fakes.api_stack import ManualClock
from tests.fakes.stores import MemoryDeliveryLogReader, MemoryFailedDeliveries


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
