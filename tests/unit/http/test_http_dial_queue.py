"""Whose connection is begun next, and in which turn of the loop."""

import asyncio
from dataclasses import replace

import pytest

from dispatcher.core.exchange import Request
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http.dial_queue import DIALS_A_TURN, DialQueue

REQUEST = Request(parse_endpoint_url("http://127.0.0.1:9/"), b"POST / HTTP/1.1\r\n\r\n", b"", 10, "loud")


class Begun(list):
    """The workspaces for which a connection was begun, in order."""

    def __call__(self, request, done, started):
        """Note one."""
        del done, started
        self.append(request.workspace_id)


@pytest.fixture
async def begun():
    return Begun()


@pytest.fixture
async def queue(begun):
    return DialQueue(begun)


def put(queue, count, workspace_id="loud"):
    for _ in range(count):
        queue.put(replace(REQUEST, workspace_id=workspace_id), lambda _: None, 0.0)


async def test_a_turn_begins_so_many(queue, begun):
    """However many are asked for at once, each turn of the loop begins a few, until all are begun."""
    put(queue, 2 * DIALS_A_TURN + 1)
    seen = []
    for _ in range(5):
        seen.append((len(begun), len(queue)))
        await asyncio.sleep(0)
    turn = DIALS_A_TURN
    assert seen[:3] == [(turn, turn + 1), (2 * turn, 1), (2 * turn + 1, 0)]
    assert seen[-1] == (2 * turn + 1, 0)


async def test_what_one_turn_left_is_not_kept_for_the_next(queue, begun):
    """After an idle time a turn begins no more than any other; one alone is begun at once."""
    put(queue, 1)
    assert begun == ["loud"]
    for _ in range(5):
        await asyncio.sleep(0)
    put(queue, DIALS_A_TURN + 1)
    assert (len(begun), len(queue)) == (1 + DIALS_A_TURN, 1)


async def test_workspaces_take_turns(queue, begun):
    """A workspace that asks for one connection doesn't wait for another's hundreds."""
    put(queue, 100)
    put(queue, 2, "quiet")
    await asyncio.sleep(0)
    assert begun[DIALS_A_TURN:] == ["loud", "quiet", "loud", "quiet", *["loud"] * (DIALS_A_TURN - 4)]


async def test_what_waits_is_taken_out(queue, begun):
    """What is taken out is begun no more, and the next one is begun as ever."""
    put(queue, DIALS_A_TURN)
    put(queue, 1, "a")
    put(queue, 2, "b")
    assert [request.workspace_id for request, _, _ in queue.clear()] == ["a", "b", "b"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert (len(queue), len(begun)) == (0, DIALS_A_TURN)
    put(queue, 1, "c")
    assert begun[-1] == "c"
