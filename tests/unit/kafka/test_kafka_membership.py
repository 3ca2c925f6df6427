"""How long a member is sure to be one, by the heartbeats that were answered."""

import asyncio
from types import SimpleNamespace

import pytest

from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.settings import KafkaSettings

SESSION_SECONDS = KafkaSettings("127.0.0.1:1").session_timeout_ms / 1000


class Coordinator:
    """Stands for aiokafka's: sends heartbeats that are answered as the test says, after a second."""

    def __init__(self, clock) -> None:
        self._clock = clock
        self.answer = True

    async def _do_heartbeat(self):
        self._clock.now += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def clock():
    steered = SimpleNamespace(now=1000.0)
    steered.time = lambda: steered.now
    return steered


@pytest.fixture
def coordinator(clock):
    return Coordinator(clock)


@pytest.fixture
def consumer(clock, coordinator):
    made = KafkaConsumer(KafkaSettings("127.0.0.1:1"), group="g", topics=("events",))
    made._loop = clock
    made._watch_heartbeats(coordinator)
    return made


async def test_a_session_counts_from_the_sending_of_the_last_answered_heartbeat(consumer, coordinator, clock):
    """Before the first answer it is no member; after one it is for a session, less what the answer took."""
    assert not consumer.is_member
    assert await coordinator._do_heartbeat()
    clock.now += SESSION_SECONDS - 1.5
    assert consumer.is_member
    clock.now += 1
    assert not consumer.is_member


@pytest.mark.parametrize("answer", [False, OSError("broken"), asyncio.CancelledError()])
async def test_what_is_not_answered_adds_nothing(consumer, coordinator, clock, answer):
    """A refused, failed or cancelled heartbeat is passed on as it is, and the session goes on to end."""
    await coordinator._do_heartbeat()
    clock.now += SESSION_SECONDS - 2
    coordinator.answer = answer
    if answer is False:
        assert not await coordinator._do_heartbeat()
    else:
        with pytest.raises(type(answer)):
            await coordinator._do_heartbeat()
    assert not consumer.is_member


async def test_who_may_be_out_reads_nothing(consumer, coordinator, clock):
    """Partitions that may be somebody else's are not read, until a heartbeat is answered again."""
    consumer._pollable = True
    consumer._consumer = SimpleNamespace(_subscription=SimpleNamespace(reassignment_in_progress=False))
    await coordinator._do_heartbeat()
    assert consumer._can_read()
    clock.now += SESSION_SECONDS
    assert not consumer._can_read()
    await coordinator._do_heartbeat()
    assert consumer._can_read()
