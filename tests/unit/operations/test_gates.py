# ruff: noqa: D102 - what they do is said by their names
"""How much is under way at once."""

import asyncio

import pytest

from dispatcher.core.errors import TooManyRequestsError
from dispatcher.operations.gates import Gate


class Inside:
    """What is in a gate, and stays until it is let out."""

    def __init__(self, gate):
        self.gate = gate
        self.names = []
        self.out = asyncio.Event()

    async def stay(self, workspace):
        async with self.gate.enter(workspace):
            self.names.append(workspace)
            await self.out.wait()
            self.names.remove(workspace)

    async def send(self, *workspaces):
        tasks = [asyncio.create_task(self.stay(each)) for each in workspaces]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks


async def end(inside, tasks):
    inside.out.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_so_many_of_a_workspace_are_in_and_the_next_is_refused():
    """Where nobody waits, the one too many is told so, with what and when; others' places are their own."""
    inside = Inside(Gate("test events", each=2, together=10))
    tasks = await inside.send("a", "a", "a", "b")
    assert sorted(inside.names) == ["a", "a", "b"]
    with pytest.raises(TooManyRequestsError, match="too many test events of this workspace are under way") as caught:
        await tasks[2]
    assert caught.value.retry_after_seconds >= 1
    await end(inside, tasks)
    inside.out.clear()
    assert len(await inside.send("a", "a")) == len(inside.names)
    inside.out.set()


async def test_so_many_of_all_workspaces_are_in():
    """The process has a bound as well, and who comes beyond it is refused at once where nobody waits."""
    inside = Inside(Gate("test events", each=2, together=3))
    tasks = await inside.send("a", "a", "b", "b")
    assert sorted(inside.names) == ["a", "a", "b"]
    results = await end(inside, tasks)
    assert [type(each) for each in results] == [type(None)] * 3 + [TooManyRequestsError]


async def test_who_may_wait_gets_its_turn_and_a_neighbour_does_not_wait_behind_all():
    """Of fifty of one workspace some wait and the rest are refused; one of another workspace is in at once."""
    inside = Inside(Gate("counts", each=2, together=3, waiting=8, wait_seconds=20))
    tasks = await inside.send(*["a"] * 50)
    assert inside.names == ["a", "a"]
    assert sum(task.done() for task in tasks) == 40
    more = await inside.send("b")
    assert inside.names == ["a", "a", "b"]
    results = await end(inside, tasks + more)
    assert sum(isinstance(each, TooManyRequestsError) for each in results) == 40


async def test_who_waited_long_enough_is_refused_and_leaves_no_trace():
    """The wait is bounded, and afterwards every slot is there again."""
    gate = Gate("counts", each=1, together=1, waiting=3, wait_seconds=0.01)
    inside = Inside(gate)
    (first,) = await inside.send("a")
    (second, third) = await inside.send("a", "b")
    for task in (second, third):
        with pytest.raises(TooManyRequestsError):
            await task
    await end(inside, [first])
    async with gate.enter("b"):
        pass
    assert gate._places == {}


async def test_who_gives_up_waiting_leaves_its_place():
    """A request that is broken off while it waits keeps no slot."""
    gate = Gate("counts", each=1, together=1, waiting=3)
    inside = Inside(gate)
    (first,) = await inside.send("a")
    (second,) = await inside.send("a")
    second.cancel()
    await asyncio.wait({second})
    await end(inside, [first])
    async with gate.enter("a"):
        pass
    assert gate._places == {}


async def test_who_gives_up_before_the_process_has_room_frees_its_workspace_s_slot():
    """The next of the same workspace doesn't wait for a slot that nobody holds."""
    inside = Inside(Gate("counts", each=1, together=1, waiting=3, wait_seconds=20))
    (first,) = await inside.send("a")
    (second, third) = await inside.send("b", "b")
    second.cancel()
    await asyncio.wait({second})
    await end(inside, [first])
    async with asyncio.timeout(5):
        await third
