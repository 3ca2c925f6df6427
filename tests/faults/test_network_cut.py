"""A worker that Kafka can not be reached from, for longer than its session lasts."""

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dispatcher.core.errors import UnavailableError
from dispatcher.local import LocalStack
from tests.faults.hard_faults import CUT_SECONDS, NetworkCut
from tests.faults.hard_stack import open_hard_stack
from tests.faults.soak.report import report
from tests.faults.soak.rig import open_rig
from tests.kafka_support import Listener, make_topic, member, publish, quick, until


@pytest.mark.timeout(120)
async def test_member_that_was_cut_off_hands_out_nothing_that_others_took_over(
    local_stack_factory: Callable[..., Awaitable[LocalStack]], unique_name: Callable[..., str], tmp_path: Path
) -> None:
    """Reconnected after its session, a member first learns that it has none: it reads nothing of what others did."""
    async with open_hard_stack(local_stack_factory, tmp_path / "hard", mongo=False) as hard:
        bootstrap = hard.stack.kafka_bootstrap
        assert bootstrap is not None
        group, topic = unique_name("g"), await make_topic(bootstrap, unique_name("events"), 2)
        await publish(bootstrap, topic, [b"before"] * 20)
        async with member(quick(f"127.0.0.1:{hard.proxy.port}"), group, topic) as cut_off:
            await cut_off.read_until(lambda: len(cut_off.received) == 20, "the first")
            assert await cut_off.commit_done()
            reading = asyncio.create_task(read_on(cut_off))
            hard.proxy.cut()
            async with member(quick(bootstrap), group, topic) as other:
                for partition in (0, 1):
                    await publish(bootstrap, topic, [b"meanwhile"] * 20, partition)
                await other.read_until(lambda: len(other.received) == 40, "the other takes over")
                assert await other.commit_done()
                assert cut_off.consumer is not None
                assert not cut_off.consumer.is_member
                hard.proxy.mend()
                await until(lambda: len(cut_off.epochs) > 1, "it joins again")
                assert cut_off.consumer.is_member
                reading.cancel()
    assert [each.value for each in cut_off.received] == [b"before"] * 20


async def read_on(listener: Listener) -> None:
    """Poll for ever, as a worker does."""
    while True:
        with contextlib.suppress(UnavailableError):
            await listener.read()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_worker_cut_off_from_kafka_loses_nothing(
    local_stack_factory: Callable[..., Awaitable[LocalStack]],
    unique_name: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another one takes its place; when it comes back it takes part again, and every pair has ended as it should."""
    async with (
        open_hard_stack(local_stack_factory, tmp_path / "hard") as hard,
        open_rig(hard.stack, unique_name("cut"), random.Random(1), workers=1, per_second=50) as rig,
    ):
        injury = await rig.strike(NetworkCut(hard.proxy, CUT_SECONDS))
        verdict = await rig.finish()
    with capsys.disabled():
        sys.stdout.write(f"\n{report([injury], verdict)}\n")
    assert verdict.unexplained == []
