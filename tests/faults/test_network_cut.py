"""A worker that Kafka can not be reached from, for longer than its session lasts."""

import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dispatcher.local import LocalStack
from tests.faults.hard_faults import NetworkCut
from tests.faults.hard_stack import open_hard_stack
from tests.faults.soak.report import report
from tests.faults.soak.rig import open_rig

CUT_SECONDS = 10.0
"""The session lasts 6."""


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
