"""Webhooks that are made, changed and ended while a worker runs, and deliveries that wait meanwhile."""

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import standardwebhooks

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import Webhook
from dispatcher.mongo.audit import MongoAudit
from dispatcher.ports import AuditFilter
from tests.deployment import Deployment, deploy, event, event_ids, eventually, make_settings, until
from tests.receiver import Answer
from tests.services import Services
from tests.worker_process import WorkerProcess

WAITS = Answer(503, headers={"Retry-After": "1"})
"""Sends the delivery to the tier of one second: time to change the webhook."""


async def test_webhook_is_served_from_its_creation_to_its_end(
    shared: Deployment, workspace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new webhook gets the event of a second later; new URL, deactivation, return and deletion count for the next."""
    old, new = f"/{workspace}/old", f"/{workspace}/new"
    index = shared.running.index
    delays: list[float] = []
    async with shared.api(workspace) as call:

        async def change(method: str, path: str, known: Callable[[Any], bool], **fields: Any) -> Any:
            began = time.monotonic()
            answer = await call(method, f"/webhooks{path}", json=fields)
            while not known(index.get(path[1:] or answer["id"])):
                assert time.monotonic() < began + 10
                await asyncio.sleep(0.001)
            delays.append(time.monotonic() - began)
            return answer

        created = await change("POST", "", bool, url=shared.receiver.url(old), events=["user.*"])
        own = f"/{created['id']}"
        await asyncio.sleep(1 - delays[-1])
        await shared.publish(event("created", workspace=workspace))
        await until(lambda: shared.receiver.at(old), "the new webhook gets an event")

        await change("PATCH", own, lambda known: known.url.target == new, url=shared.receiver.url(new))
        await shared.publish(event("moved", workspace=workspace))
        await until(lambda: shared.receiver.at(new), "the new URL gets an event")

        await change("PATCH", own, lambda known: known.status == "inactive", status="inactive")
        await shared.publish(event("unheard", workspace=workspace))
        await shared.until_done("source")

        await change("PATCH", own, lambda known: known.status == "active", status="active", events=["user.deleted"])
        await shared.publish(event("unwanted", workspace=workspace))
        await shared.publish(event("last", "user.deleted", workspace))
        await until(lambda: len(shared.receiver.at(new)) == 2, "the returned webhook gets what it now wants")

        await change("DELETE", own, lambda known: known is None)
        await shared.publish(event("late", "user.deleted", workspace))
        await shared.until_done("source")
    assert event_ids(shared.receiver.at(old)) == ["evt_created"]
    assert event_ids(shared.receiver.at(new)) == ["evt_moved", "evt_last"]
    with capsys.disabled():
        mean, most = statistics.mean(delays) * 1000, max(delays) * 1000
        sys.stdout.write(
            f"\nfrom an API call to the worker's index: {mean:.1f} ms in the mean, {most:.1f} ms at most\n"
        )


ROUNDS = 4
PAIRS = 20


@pytest.fixture
async def pair(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Deployment]:
    """A deployment of its own whose topics have two partitions: one for each of two workers."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("pair"), partitions=2)
    async with deploy(settings) as deployment:
        yield deployment


class Stream:
    """Events for both partitions of the source, and where each of them arrived."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._numbers = itertools.count()

    async def put(self) -> dict[str, tuple[int, float]]:
        """Publish pairs of events, one for each partition; gives their ids with the partition and the time."""
        batch: dict[str, tuple[int, float]] = {}
        for _ in range(PAIRS):
            numbers = (next(self._numbers), next(self._numbers))
            for partition, number in enumerate(numbers):
                batch[f"evt_{number}"] = (partition, time.monotonic())
            publish = self._deployment.publish
            await asyncio.gather(*(publish(event(number), partition=p) for p, number in enumerate(numbers)))
        return batch

    async def delays(self, batch: dict[str, tuple[int, float]], began: float, path: str | None) -> list[float]:
        """Publish further batches until a whole one goes where it should (None: nowhere).

        Args:
            batch: What was published while the change was being made.
            began: When the change was asked for.
            path: Where events should go since.

        Returns:
            For each partition, how long after `began` the last event was published that went elsewhere, seconds; 0
            where there was none.
        """
        delays = [0.0, 0.0]
        receiver = self._deployment.receiver
        while True:
            await self._deployment.until_done("source")
            arrived: dict[str, set[str]] = {each: set() for each in batch}
            for request in receiver.received:
                for each in arrived.keys() & set(event_ids([request])):
                    arrived[each].add(request.path)
            wrong = [each for each, paths in arrived.items() if paths != ({path} if path else set())]
            if not wrong:
                return delays
            for each in wrong:
                partition, sent_at = batch[each]
                delays[partition] = max(delays[partition], sent_at - began)
            assert time.monotonic() < began + 30, f"{len(wrong)} of {len(batch)} events go by what was before"
            batch = await self.put()


async def both_take_part(stream: Stream, workers: tuple[WorkerProcess, WorkerProcess]) -> None:
    """Publish until each worker has taken events."""

    async def taken() -> list[bool]:
        before = [await worker.metric("dispatcher_events_total") for worker in workers]
        await stream.put()
        return [
            await worker.metric("dispatcher_events_total") > number
            for worker, number in zip(workers, before, strict=True)
        ]

    await eventually(taken, all, "both workers take events", 60)


@pytest.mark.timeout(180)
async def test_changes_take_effect_at_two_running_workers(pair: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """What the API made, changed, deactivated or deleted counts for the next events of both workers' partitions."""
    old, new = "/old", "/new"
    urls = {path: pair.receiver.url(path) for path in (old, new)}
    delays: dict[str, list[float]] = {}
    async with pair.process() as first, pair.process() as second, pair.api() as call:
        stream, workers = Stream(pair), (first, second)
        await both_take_part(stream, workers)
        await pair.until_done("source")

        async def change(what: str, method: str, path: str, arrives_at: str | None, **fields: Any) -> Any:
            began = time.monotonic()
            answer, batch = await asyncio.gather(call(method, f"/webhooks{path}", json=fields), stream.put())
            delays.setdefault(what, []).extend(await stream.delays(batch, began, arrives_at))
            return answer

        for _ in range(ROUNDS):
            created = await change("created", "POST", "", old, url=urls[old], events=["user.*"])
            own = f"/{created['id']}"
            await change("new URL", "PATCH", own, new, url=urls[new])
            await change("deactivated", "PATCH", own, None, status="inactive")
            await change("activated", "PATCH", own, new, status="active")
            await change("deleted", "DELETE", own, None)
        await both_take_part(stream, workers)
    with capsys.disabled():
        sys.stdout.write("\nfrom an API request to the last event that a worker treated as before, ms:\n")
        for what, seen in delays.items():
            shown = " ".join(f"{seconds * 1000:.0f}" for seconds in seen)
            sys.stdout.write(f"  {what}: {shown} (at most {max(seen) * 1000:.0f})\n")
        within = sum(seconds < 1 for seen in delays.values() for seconds in seen)
        sys.stdout.write(f"  within a second: {within} of {sum(map(len, delays.values()))}\n")


async def test_endpoint_that_is_gone_is_disabled(shared: Deployment, workspace: str) -> None:
    """410 ends the delivery as gone and disables the webhook, which then gets nothing more."""
    path = f"/{workspace}"
    shared.receiver.answer(path, 410)
    webhook = await shared.webhook_known_to(shared.running, path, workspace)
    await shared.publish(event("gone", workspace=workspace))
    wanted = shared.delivery_id("evt_gone", webhook)
    logged = await shared.until_logged(wanted, webhook, DeliveryStatus.FAILED)
    letter = await shared.until_dead_letter(wanted)
    assert (logged.reason, logged.response_code, logged.attempts_made) == ("gone", 410, 1)
    assert (letter.reason, letter.attempt, letter.http_status) == ("gone", 1, 410)
    stored = await shared.webhooks.get(workspace, webhook.subscription.id)
    assert (stored.subscription.status, stored.disabled_reason) == ("disabled", "gone")
    noted = await MongoAudit(shared.connection.audit).page(workspace, AuditFilter(), None, 10)
    assert [(each.action, each.target_id, each.actor.kind) for each in noted.rows] == [
        ("webhook.disable", webhook.subscription.id, "dispatcher")
    ]
    index = shared.running.index
    await until(lambda: index.get(webhook.subscription.id).status == "disabled", "the worker knows")
    await shared.publish(event("after", workspace=workspace))
    await shared.until_done()
    assert event_ids(shared.receiver.at(path)) == ["evt_gone"]


async def failed_once(shared: Deployment, workspace: str, **fields: Any) -> tuple[Webhook, str]:
    """Make a webhook whose first delivery now waits for its second attempt."""
    path = f"/{workspace}"
    shared.receiver.answer(path, lambda request: WAITS if request.attempt == 1 else 200)
    webhook = await shared.webhook_known_to(shared.running, path, workspace, **fields)
    await shared.publish(event("waits", workspace=workspace))
    await until(lambda: shared.receiver.at(path), "the first attempt")
    return webhook, shared.delivery_id("evt_waits", webhook)


@pytest.mark.parametrize("end", ["deleted", "inactive", "disabled"])
async def test_delivery_of_an_ended_webhook_is_skipped(shared: Deployment, workspace: str, end: str) -> None:
    """What waits when its webhook is deleted, deactivated or disabled is logged as skipped and not sent."""
    webhook, wanted = await failed_once(shared, workspace)
    if end == "deleted":
        await shared.webhooks.delete(workspace, webhook.subscription.id)
    elif end == "inactive":
        await shared.webhooks.update(workspace, webhook.subscription.id, {"status": "inactive"})
    else:
        await shared.store.disable(webhook.subscription, "gone", int(time.time() * 1000))
    logged = await shared.until_logged(wanted, webhook, DeliveryStatus.SKIPPED)
    assert (logged.reason, logged.attempts_made) == (end, 1)
    await shared.until_done()
    assert [request.attempt for request in shared.receiver.at(f"/{workspace}")] == [1]
    assert await shared.letters(wanted) == []


async def test_delivery_that_waited_goes_out_with_todays_values(shared: Deployment, workspace: str) -> None:
    """URL, secret, method and format changed since: the second attempt has today's, though events match no more."""
    webhook, wanted = await failed_once(shared, workspace, secret="whsec_" + "QQ==" * 8)
    later, secret = f"/{workspace}/later", "whsec_dG9kYXkncyBzZWNyZXQgb2Ygb25lIHdlYmhvb2s="
    await shared.webhooks.update(
        workspace,
        webhook.subscription.id,
        {
            "url": shared.receiver.url(later),
            "method": "PATCH",
            "payload_format": "cloudevents",
            "events": ["post.deleted"],
            "headers": {"X-New": "yes"},
        },
    )
    await shared.change_secret(webhook, secret)
    logged = await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    (received,) = shared.receiver.at(later)
    assert (received.method, received.attempt, received.headers["x-new"]) == ("PATCH", 2, "yes")
    assert received.headers["content-type"] == "application/cloudevents+json"
    assert standardwebhooks.Webhook(secret).verify(received.body, dict(received.headers))["id"] == "evt_waits"
    assert len(shared.receiver.at(f"/{workspace}")) == 1
    assert logged.attempts_made == 2


async def test_fewer_attempts_allowed_since_end_the_delivery(shared: Deployment, workspace: str) -> None:
    """A delivery that made as many attempts as are now allowed is failed when due, and not sent again."""
    webhook, wanted = await failed_once(shared, workspace)
    await shared.webhooks.update(workspace, webhook.subscription.id, {"max_attempts": 1})
    logged = await shared.until_logged(wanted, webhook, DeliveryStatus.FAILED)
    assert logged.reason == "attempts_exhausted"
    letter = await shared.until_dead_letter(wanted)
    assert (letter.reason, letter.attempt) == ("attempts_exhausted", 1)
    assert len(shared.receiver.at(f"/{workspace}")) == 1
