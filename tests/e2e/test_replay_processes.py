"""Replay jobs across worker processes: who runs one, how it gets on, and what is left when its runner is killed."""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import Webhook
from dispatcher.pipeline.replay_deliveries import BATCH_DELIVERIES
from tests.deployment import WORKSPACE, Deployment, deploy, event, eventually, make_settings, until
from tests.services import Services

SPAN = {"since": "2020-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"}
COUNT = 6 * BATCH_DELIVERIES
PATH = "/replayed"


@pytest.fixture
async def deployment(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Deployment]:
    """A deployment of the test's own, without a worker."""
    async with deploy(make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("jobs"))) as made:
        yield made


async def failed_deliveries(deployment: Deployment) -> tuple[Webhook, list[str]]:
    """Make a webhook and events of which every second one's delivery fails: its circuit stays closed."""
    deployment.receiver.answer(PATH, lambda request: 500 if json.loads(request.body)["data"]["n"] % 2 else 200)
    webhook = await deployment.webhook(PATH, max_attempts=1)
    return webhook, (await publish(deployment, webhook, 2 * COUNT))[1::2]


async def missed_events(deployment: Deployment) -> tuple[Webhook, list[str]]:
    """Make a webhook that isn't active, and events that it wants."""
    webhook = await deployment.webhook(PATH, status="inactive")
    return webhook, await publish(deployment, webhook, COUNT)


async def publish(deployment: Deployment, webhook: Webhook, count: int) -> list[str]:
    """Publish so many events; gives their deliveries' ids."""
    await deployment.publish(*(event(number) for number in range(count)))
    return [deployment.delivery_id(f"evt_{number}", webhook) for number in range(count)]


class Observer:
    """Looks at a job again and again: its progress as the API shows it, and who holds it."""

    def __init__(self, deployment: Deployment, call: Callable[..., Any], job_id: str) -> None:
        self._deployment = deployment
        self._call = call
        self._id = job_id
        self.done_with: list[int] = []
        self.holders: list[str] = []

    async def look(self) -> Any:
        """Look once; gives the job as the API shows it."""
        job = await self._call("GET", f"/replays/{self._id}")
        counts = job["counts"]
        self.done_with.append(counts["produced"] + counts["gone"] + counts["skipped"])
        stored = await self._deployment.connection.replays.find_one({"_id": self._id})
        assert stored is not None
        owner = stored["owner"]
        if owner is not None and self.holders[-1:] != [owner]:
            self.holders.append(owner)
        return job


@pytest.mark.timeout(180)
@pytest.mark.parametrize("source", ["deliveries", pytest.param("events", marks=pytest.mark.slow)])
async def test_killed_runners_job_is_finished_by_another_process(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    """SIGKILL of the worker that runs a job, in its middle: another finishes it, none is lost, few come twice."""
    webhook, ids = await (failed_deliveries if source == "deliveries" else missed_events)(deployment)
    own, receiver = f"/webhooks/{webhook.subscription.id}", deployment.receiver
    async with deployment.process() as first, deployment.process() as second, deployment.api() as call:
        await deployment.until_done()
        before = len(receiver.at(PATH))
        assert before == (2 * COUNT if source == "deliveries" else 0)
        receiver.answer(PATH, 200)
        if source == "events":
            await call("PATCH", own, json={"status": "active"})
        wanted = {"status": "failed"} if source == "deliveries" else {}
        made = await call("POST", f"{own}/replay", json={**SPAN, **wanted, "source": source})
        observer = Observer(deployment, call, made["id"])
        await eventually(observer.look, lambda job: job["counts"]["produced"] >= BATCH_DELIVERIES, "it is under way")
        assert observer.done_with[-1] < COUNT, "the job was over before its runner could be killed"
        (holder,) = observer.holders
        victim, heir = (first, second) if f"-{first.pid}-" in holder else (second, first)
        await victim.kill()
        done = await eventually(observer.look, lambda job: job["status"] == "done", "another finished it", 120)
        for each in ids:
            logged = await deployment.until_logged(each, webhook, DeliveryStatus.DELIVERED, 60)
            assert logged.run == made["id"]
        await deployment.until_done("replay", seconds=60)
    assert done["counts"] == {"selected": COUNT, "produced": COUNT, "gone": 0, "skipped": 0}
    assert observer.done_with == sorted(observer.done_with), "progress never goes back"
    assert len(observer.holders) == 2
    assert f"-{heir.pid}-" in observer.holders[1]
    again = Counter(request.delivery_id for request in receiver.at(PATH)[before:])
    assert set(again) == set(ids)
    repeats = sum(again.values()) - COUNT
    with capsys.disabled():
        sys.stdout.write(f"\nkilled after {COUNT} deliveries were asked for: {repeats} came twice\n")
    # What the killed one had in hand, and what it had in flight to the endpoint.
    assert repeats <= 2 * BATCH_DELIVERIES


@pytest.mark.timeout(120)
async def test_many_processes_run_a_job_once(deployment: Deployment) -> None:
    """Three workers that look for jobs at the same time: one holds the job, and each delivery goes out once."""
    webhook, ids = await failed_deliveries(deployment)
    receiver = deployment.receiver
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(deployment.process()) for _ in range(3)))
        call = await stack.enter_async_context(deployment.api(WORKSPACE))
        await deployment.until_done("source")
        await until(lambda: len(receiver.at(PATH)) == 2 * COUNT, "each was tried")
        receiver.answer(PATH, 200)
        made = await call("POST", f"/webhooks/{webhook.subscription.id}/replay", json={**SPAN, "status": "failed"})
        observer = Observer(deployment, call, made["id"])
        await eventually(observer.look, lambda job: job["status"] == "done", "it is done", 60)
        await until(lambda: len(receiver.at(PATH)) >= 3 * COUNT, "all went out")
        await deployment.until_done("replay", seconds=60)
    # A turn may end and another worker go on; what counts is that no two did the same.
    assert Counter(request.delivery_id for request in receiver.at(PATH)[2 * COUNT :]) == Counter(ids)
