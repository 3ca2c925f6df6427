"""A run of two to three minutes under load: one fault after another, and a ledger at the end."""

import random
import sys
from collections.abc import Awaitable, Callable

import pytest

from dispatcher.local import LocalStack
from tests.faults.soak.report import report
from tests.faults.soak.rig import open_rig
from tests.faults.soak.schedule import short_run

SEED = 20


@pytest.mark.timeout(600)
async def test_faults_lose_nothing(
    local_stack_factory: Callable[..., Awaitable[LocalStack]],
    unique_name: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through each fault every pair arrives, waits or has its dead letter; no commit is early; the log is right."""
    chance = random.Random(SEED)
    stack = await local_stack_factory()
    with capsys.disabled():
        sys.stdout.write(f"\nseed {SEED}\n")
        async with open_rig(stack, unique_name("short"), chance, workers=2, per_second=100) as rig:
            for fault in short_run(chance):
                injury = await rig.strike(fault)
                sys.stdout.write(f"{injury}\n")
            verdict = await rig.finish()
            sys.stdout.write(f"{report(rig.injuries, verdict)}\n")
            assert verdict.unexplained == []
