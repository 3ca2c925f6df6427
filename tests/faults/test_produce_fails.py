"""Kafka doesn't take retries and dead letters for a while: they wait, and what they stand for isn't committed."""

from pathlib import Path

import pytest

from dispatcher.core.records import DeliveryRecord, decode_dead_letter
from tests.deployment import Deployment, until
from tests.faults.fault_plan import FaultPlan
from tests.faults.load import check_nothing_lost, make_ledger
from tests.ledger import Ledger

PER_SECOND = 100


@pytest.mark.timeout(150)
async def test_retries_and_dead_letters_wait_while_kafka_refuses_them(deployment: Deployment, tmp_path: Path) -> None:
    """Refused produces hold the offsets back, stop nobody else, and go out once: nothing is lost or sent twice."""
    ledger = await make_ledger(deployment)
    plan = FaultPlan(tmp_path)
    names = deployment.names
    async with deployment.process(command=plan.command) as worker:
        async with ledger.flow(PER_SECOND):
            await until(lambda: any(each.attempt > 1 for each in deployment.receiver.received), "a retry goes out")
            plan.refuse(names.retry(names.tiers[0]), names.dead_letter)
            await worker.until_ready(wanted=False)
            healthy = len(deployment.receiver.at("/ok"))
            await until(
                lambda: len(deployment.receiver.at("/ok")) > healthy + PER_SECOND, "the healthy webhook goes on"
            )
            await check_offsets_wait(ledger)
            assert await deployment.lag("source") > PER_SECOND
            plan.refuse()
            await worker.until_ready()
        await check_nothing_lost(ledger)
        assert worker.runs
    assert ledger.duplicates().same_attempt == 0
    assert ledger.sent_after_accepted() == []


async def check_offsets_wait(ledger: Ledger) -> None:
    """Prove that no event is committed whose delivery was neither accepted nor has a retry or a dead letter."""
    deployment = ledger.deployment
    committed = await deployment.committed()
    settled = {each.delivery_id for each in deployment.receiver.received if each.accepted}
    for tier in deployment.names.tiers:
        settled |= {each.delivery_id for each in await deployment.carried(deployment.names.retry(tier))}
    letters = [decode_dead_letter(each.headers) for each in await deployment.records(deployment.names.dead_letter)]
    settled |= {each.delivery_id for each in letters if isinstance(each, DeliveryRecord)}
    passed = [
        event_id
        for (partition, offset), event_id in ledger.published.items()
        if offset < committed.get((deployment.source, partition), 0)
    ]
    wanted = {deployment.delivery_id(event_id, each) for event_id in passed for each in ledger.webhooks.values()}
    assert passed
    assert wanted <= settled
