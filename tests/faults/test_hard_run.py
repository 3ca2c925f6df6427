"""Every hard fault once under one load, as the long run injects them; `make soak` has the time for it."""

import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dispatcher.local import LocalStack
from tests.faults.hard_faults import hard_faults
from tests.faults.hard_stack import open_hard_stack
from tests.faults.soak.report import report
from tests.faults.soak.rig import open_rig

SEED = 31


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_hard_faults_lose_nothing(
    local_stack_factory: Callable[..., Awaitable[LocalStack]],
    unique_name: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Kill points, clocks, refused produces, lost history, a cut network, a full disk: nothing is lost through any."""
    chance = random.Random(SEED)
    async with (
        open_hard_stack(local_stack_factory, tmp_path / "hard") as hard,
        open_rig(hard.stack, unique_name("hard"), chance, workers=2, per_second=50) as rig,
    ):
        with capsys.disabled():
            sys.stdout.write(f"\nseed {SEED}{hard.why_no_disk and f'; {hard.why_no_disk}'}\n")
            for make in hard_faults(hard):
                sys.stdout.write(f"{await rig.strike(make(chance))}\n")
                sys.stdout.flush()
            verdict = await rig.finish()
            sys.stdout.write(f"{report(rig.injuries, verdict)}\n")
    assert verdict.unexplained == []
