"""The wall clock of a worker jumps under load, forward and back: nothing is lost, sent twice, or negative."""

from pathlib import Path

import pytest

from tests.deployment import Deployment
from tests.faults.fault_plan import FaultPlan
from tests.faults.load import check_nothing_lost, make_ledger

PER_SECOND = 100
HOUR = 3600
# From two hours ahead on, Kafka refuses records: their time is more than an hour ahead of its own.
SHIFTS = (30, 0, -30, HOUR, -HOUR, 0, 2 * HOUR, 0)
MEASURED = (
    "dispatcher_retry_lateness_seconds_sum",
    "dispatcher_end_to_end_seconds_sum",
    "dispatcher_attempt_duration_seconds_sum",
)
SHOWN = ("dispatcher_consumer_lag_seconds", "dispatcher_retry_overdue_seconds", "dispatcher_index_staleness_seconds")


@pytest.mark.timeout(150)
async def test_clock_that_jumps_under_load_loses_and_repeats_nothing(deployment: Deployment, tmp_path: Path) -> None:
    """Jumps of half a minute to two hours, each way: all arrives once, soon, and no measured time goes back."""
    ledger = await make_ledger(deployment)
    plan = FaultPlan(tmp_path)
    received = deployment.receiver.received
    async with deployment.process(command=plan.command) as worker:
        async with ledger.flow(PER_SECOND):
            measured = dict.fromkeys(MEASURED, 0.0)
            for shift in SHIFTS:
                plan.shift_clock(shift)
                await ledger.until_got(ledger.got() + 3 * PER_SECOND)
                for name, before in measured.items():
                    measured[name] = await worker.metric(name)
                    assert measured[name] >= before, name
                for name in SHOWN:
                    assert await worker.metric(name) >= 0, name
        await check_nothing_lost(ledger)
        assert worker.runs
    off_by = {round(int(each.headers["webhook-timestamp"]) - each.at, -1) for each in received}
    assert set(SHIFTS) <= off_by
    assert ledger.sent_after_accepted() == []
    assert ledger.duplicates().same_attempt == 0
