"""A run of half an hour and more under load: every fault, round after round in drawn orders, and a ledger at the end.

`SOAK_MINUTES` says how long, `SOAK_SEED` repeats the orders and moments of an earlier run.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dispatcher.local import LocalStack
from tests.faults.hard_faults import hard_faults
from tests.faults.hard_stack import open_hard_stack
from tests.faults.soak.report import report
from tests.faults.soak.rig import open_rig
from tests.faults.soak.schedule import long_run

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
MARGIN_SECONDS = 1200
CALM_SECONDS = 5.0


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + MARGIN_SECONDS)
async def test_half_an_hour_of_faults_loses_nothing(
    local_stack_factory: Callable[..., Awaitable[LocalStack]],
    unique_name: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every fault at least once, and on until the time is over: nothing is lost; ends at the first fault that fails."""
    seed = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
    chance = random.Random(seed)
    async with (
        open_hard_stack(local_stack_factory, tmp_path / "hard") as hard,
        open_rig(hard.stack, unique_name("long"), chance, workers=2, per_second=50) as rig,
    ):
        with capsys.disabled():
            sys.stdout.write(f"\nseed {seed}, {MINUTES:g} minutes{hard.why_no_disk and f'; {hard.why_no_disk}'}\n")
            deadline = time.monotonic() + MINUTES * 60
            for number, faults in enumerate(long_run(chance, hard_faults(hard))):
                for fault in faults:
                    if number and time.monotonic() > deadline:
                        break
                    sys.stdout.write(f"{await rig.strike(fault)}\n")
                    await asyncio.sleep(chance.uniform(0, CALM_SECONDS))
                if time.monotonic() > deadline:
                    break
            verdict = await rig.finish()
            sys.stdout.write(f"{report(rig.injuries, verdict)}\n")
            assert verdict.unexplained == []
