"""The disk of Kafka has no room for another byte: what was acknowledged is there when it has room again."""

import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dispatcher.local import LocalStack
from tests.faults.hard_faults import DiskFull
from tests.faults.hard_stack import open_hard_stack
from tests.faults.soak.report import report
from tests.faults.soak.rig import open_rig


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_broker_whose_disk_is_full_loses_nothing_that_it_acknowledged(
    local_stack_factory: Callable[..., Awaitable[LocalStack]],
    unique_name: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Filled to the last byte under load, Kafka stops; with room again it is started, and every pair ends well."""
    async with open_hard_stack(local_stack_factory, tmp_path / "hard") as hard:
        if hard.disk is None:
            pytest.skip(hard.why_no_disk)
        async with open_rig(hard.stack, unique_name("full"), random.Random(1), workers=1, per_second=50) as rig:
            injury = await rig.strike(DiskFull(hard.disk))
            verdict = await rig.finish()
    with capsys.disabled():
        sys.stdout.write(f"\n{report([injury], verdict)}\n")
    assert verdict.unexplained == []
