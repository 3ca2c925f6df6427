"""How long a worker takes to start, to be replaced and to end. Times are printed; what is asserted is that it happens.

The deadlines stand far above what is promised (3 s to ready with 10,000 subscriptions; session time-out and 3 s after a
SIGKILL; 25 s to the end after SIGTERM): a busy machine must not fail them.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.mongo.webhook_documents import document_of
from tests.deployment import Deployment, event, event_ids, eventually, until
from tests.ledger import Ledger
from tests.receiver import HANG, Answer

SUBSCRIPTIONS = 10_000
STARTS = 3
DEADLINE_SECONDS = 40.0


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line past pytest."""

    def line(words: str) -> None:
        with capsys.disabled():
            print(f"\n{words}")  # noqa: T201 - a measurement prints

    return line


async def store_many(deployment: Deployment, count: int) -> None:
    """Store so many webhooks, in 100 workspaces, as the API would; none of them wants what these tests publish."""
    made = await deployment.webhook("/many", events=["project.created"])
    subscription = made.subscription
    documents = [
        document_of(
            replace(
                made,
                subscription=replace(subscription, id=f"wh_many{number:05}", workspace_id=f"ws_{number % 100}"),
                url=deployment.receiver.url(f"/many/{number}"),
            )
        )
        for number in range(count - 1)
    ]
    await deployment.connection.webhooks.insert_many(documents)


@pytest.mark.timeout(170)
async def test_cold_start_with_many_subscriptions(deployment: Deployment, show: Callable[[str], None]) -> None:
    """A worker with 10,000 subscriptions becomes ready, has all of them in memory, and delivers at once."""
    await store_many(deployment, SUBSCRIPTIONS - 1)
    webhook = await deployment.webhook("/hook")
    took = []
    worker = deployment.process()
    for number in range(STARTS):
        began = time.monotonic()
        await worker.start(ready=False)
        await worker.until_ready(seconds=DEADLINE_SECONDS)
        took.append(time.monotonic() - began)
        assert await worker.metric("dispatcher_index_subscriptions") == SUBSCRIPTIONS
        await deployment.publish(event(number))
        await deployment.until_logged(
            deployment.delivery_id(f"evt_{number}", webhook), webhook, DeliveryStatus.DELIVERED, DEADLINE_SECONDS
        )
        worker.terminate()
        assert await worker.ended(DEADLINE_SECONDS) == 0
    worker._output.close()
    times = ", ".join(f"{seconds:.2f}" for seconds in took)
    show(f"cold start to ready with {SUBSCRIPTIONS:,} subscriptions: best {min(took):.2f} s of {times} s (wanted: 3)")


@pytest.mark.parametrize("survivors", [0, 1], ids=["its successor", "one that was there"])
@pytest.mark.timeout(170)
async def test_after_a_kill_others_go_on(deployment: Deployment, show: Callable[[str], None], survivors: int) -> None:
    """Whatever partition an event is on, it arrives after its worker was killed: nothing waits for anybody's hand."""
    webhook = await deployment.webhook("/hook")
    ledger = Ledger(deployment, {"/hook": webhook})
    async with deployment.process() as victim, deployment.process() as other:
        if survivors:
            await both_work(deployment, victim, other)
        await ledger.publish(20)
        await until(lambda: not ledger.missing(), "everything arrives before", DEADLINE_SECONDS)
        await victim.kill()
        killed = time.monotonic()
        if not survivors:
            await other.start(ready=False)
        partitions = await published_everywhere(deployment)
        await until(lambda: partitions <= arrived(deployment), "every partition is served again", 3 * DEADLINE_SECONDS)
        took = time.monotonic() - killed
        await deployment.until_done(seconds=DEADLINE_SECONDS)
    assert not ledger.missing()
    session = deployment.settings.kafka.session_timeout_ms / 1000
    who = "a worker that was there" if survivors else "a worker started at once"
    show(f"from SIGKILL until {who} serves every partition: {took:.2f} s (wanted: session {session:g} s + 3)")


async def both_work(deployment: Deployment, first: Any, second: Any) -> None:
    """Start another worker beside one that runs, and wait until both have partitions of the source topic."""
    await second.start()

    async def events() -> tuple[float, float]:
        await deployment.publish(event("both", "project.created", workspace="nobody"))
        return await first.metric("dispatcher_events_total"), await second.metric("dispatcher_events_total")

    await eventually(events, all, "both take events up", DEADLINE_SECONDS)


async def published_everywhere(deployment: Deployment) -> set[str]:
    """Publish an event to each partition of the source topic; gives their ids."""
    count = deployment.settings.topics.partitions
    for number in range(count):
        await deployment.publish(event(f"partition_{number}"), partition=number)
    return {f"evt_partition_{number}" for number in range(count)}


def arrived(deployment: Deployment) -> set[str]:
    """Give the ids of all events that the receiver got."""
    return set(event_ids(deployment.receiver.at("/hook")))


@pytest.mark.timeout(170)
async def test_the_end_with_hung_endpoints(deployment: Deployment, show: Callable[[str], None]) -> None:
    """SIGTERM under hung endpoints ends cleanly; nothing is lost, and nothing that was answered is sent again."""
    receiver = deployment.receiver
    receiver.answer("/hung", HANG)
    receiver.answer("/slow", Answer(200, 0.5))
    webhooks = {
        "/hung": await deployment.webhook("/hung", timeout_seconds=30),
        "/slow": await deployment.webhook("/slow"),
        "/quick": await deployment.webhook("/quick"),
    }
    ledger = Ledger(deployment, webhooks)
    async with deployment.process() as worker:
        await ledger.publish(60)
        await until(lambda: receiver.at("/hung") and receiver.at("/slow"), "requests are under way", DEADLINE_SECONDS)
        worker.terminate()
        began = time.monotonic()
        assert await worker.ended(2 * DEADLINE_SECONDS) == 0
        took = time.monotonic() - began
        answered = len({request.delivery_id for request in receiver.received if request.accepted})
        receiver.answer("/hung", 200)
        await worker.start()
        await until(lambda: not ledger.missing(), "what hung and what waited arrives", 2 * DEADLINE_SECONDS)
        for path, webhook in webhooks.items():
            for id_ in {request.delivery_id for request in receiver.at(path)}:
                await deployment.until_logged(id_, webhook, DeliveryStatus.DELIVERED, DEADLINE_SECONDS)
        await deployment.until_done(seconds=2 * DEADLINE_SECONDS)
    assert answered
    assert ledger.sent_after_accepted() == []
    show(f"SIGTERM to exit with hung endpoints: {took:.2f} s (wanted: under 25), {answered} answered before")
