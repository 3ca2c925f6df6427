"""A worker is killed at the worst moments, not at random ones: nothing is lost, and what is repeated is bounded."""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.deployment import Deployment, deploy, make_settings, until
from tests.faults.fault_plan import FaultPlan, KillPoint
from tests.faults.load import check_nothing_lost, make_ledger
from tests.ledger import Ledger
from tests.services import Services

PER_SECOND = 100


@pytest.mark.timeout(150)
@pytest.mark.parametrize("point", ["log", "produced", "commit"])
async def test_worker_killed_at_a_chosen_point_loses_nothing(
    services: Services,
    unique_name: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    point: KillPoint,
) -> None:
    """Killed at the 1st, 7th and a late passing of a point: lost 0; only what the log lacked then is sent again."""
    counts = (1, 7, 100) if point != "commit" else (1, 7, 20)
    async with AsyncExitStack() as stack:
        made = []
        for count in counts:
            settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("kill"), partitions=4)
            folder = tmp_path / str(count)
            folder.mkdir()
            made.append((await stack.enter_async_context(deploy(settings)), FaultPlan(folder), count))
        said = await asyncio.gather(*(_killed_once(deployment, plan, point, count) for deployment, plan, count in made))
    with capsys.disabled():
        sys.stdout.write("\n" + "".join(said))


async def _killed_once(deployment: Deployment, plan: FaultPlan, point: KillPoint, count: int) -> str:
    ledger = await make_ledger(deployment)
    plan.kill_at(point, count)
    async with deployment.process(command=plan.command) as worker:
        async with ledger.flow(PER_SECOND):
            assert await worker.ended(60) == -9
        # What it sent in its last moment is read before its connections end.
        await until(lambda: not deployment.receiver.connections, "the dead worker's connections end")
        killed_at = time.time()
        logged = await ledger.logged_steps()
        unlogged = {(each.delivery_id, each.attempt) for each in deployment.receiver.received} - logged
        await ledger.check_committed()
        await worker.start(ready=False)
        await check_nothing_lost(ledger)
        last_words = next(line for line in worker.output().splitlines() if line.startswith("killed at"))
    assert ledger.repeated_since(killed_at, logged) == []
    repeated = _repeated(ledger)
    assert repeated <= {delivery_id for delivery_id, _ in unlogged}
    return (
        f"{last_words}; {len(unlogged)} answers unlogged, {len(repeated)} deliveries repeated; {ledger.duplicates()}\n"
    )


def _repeated(ledger: Ledger) -> set[str]:
    """Give the deliveries of which some attempt was sent twice."""
    steps = sorted((each.delivery_id, each.attempt) for each in ledger.deployment.receiver.received)
    return {first[0] for first, second in itertools.pairwise(steps) if first == second}
