"""Worlds for the pipeline's tests, with short times."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dispatcher.pipeline import role
from tests.unit.pipeline.world import World


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "COMMIT_SECONDS", 0.02)
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0.3)
    monkeypatch.setattr(role, "HAND_OVER_SECONDS", 0.3)


@pytest.fixture
async def worlds() -> AsyncIterator[Callable[..., World]]:
    """Make worlds; each is stopped at the test's end and must have had no fault that the test didn't expect."""
    made: list[World] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def make(*tiers: str, **limits: Any) -> World:
        made.append(World(*tiers, **limits))
        return made[-1]

    yield make
    for world in made:
        world.sender.release()
        world.producer.release()
        world.log.down = world.log.hangs = world.subscriptions.down = False
        world.subscriptions.gate.set()
        await world.stop()
    loop.set_exception_handler(before)
    for world in made:
        assert not world.unhandled, world.unhandled
