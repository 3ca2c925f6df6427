"""What one does to a webhook in the API, to the endpoint's end: test, rotate, redeliver, replay."""

import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import standardwebhooks
from aiohttp.test_utils import TestClient, TestServer
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.core.reruns import ReplayJob, ReplayStatus, new_run_id, pending_entry
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.times import parse_rfc3339, rfc3339
from dispatcher.pipeline.replay_deliveries import BATCH_DELIVERIES
from dispatcher.settings import Settings
from tests.deployment import Deployment, event, event_ids, eventually, until
from tests.kafka_support import admin_client, make_topic
from tests.receiver import Answer, Received

FIRST, SECOND, THIRD = ("whsec_" + part * 8 for part in ("QUFB", "QkJC", "Q0ND"))
WAITS = Answer(503, headers={"Retry-After": "1"})
Call = Callable[..., Any]


@contextlib.asynccontextmanager
async def serve(deployment: Deployment, workspace: str, settings: Settings | None = None) -> AsyncIterator[Call]:
    """Serve the API; yields a call of it that gives status and JSON."""
    keys = ApiKeys(MongoApiKeys(deployment.connection.api_keys), SystemClock(), draw)
    key = (await keys.create(workspace, "test", ("read", "write"), None)).plaintext
    app = build_api(settings or deployment.settings, deployment.connection)
    async with TestClient(TestServer(app)) as client:

        async def call(method: str, path: str, **body: Any) -> tuple[int, Any]:
            sent = {"json": body} if body else {}
            headers = {"Authorization": f"Bearer {key}"}
            async with client.request(method, f"/v1{path}", headers=headers, **sent) as response:
                return response.status, await response.json()

        yield call


@pytest.fixture
async def call(shared: Deployment, workspace: str) -> AsyncIterator[Call]:
    """A call of the API with a key of the test's workspace."""
    async with serve(shared, workspace) as call:
        yield call


def verified_by(request: Received, *secrets: str) -> list[str]:
    """Say which secrets a receiver's library verifies a request with."""
    good = []
    for secret in secrets:
        with contextlib.suppress(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))
            good.append(secret)
    return good


async def rotated(shared: Deployment, call: Call, webhook_id: str, **sent: Any) -> Any:
    """Rotate a secret and wait until the worker knows."""
    status, answer = await call("POST", f"/webhooks/{webhook_id}/rotate-secret", **sent)
    assert status == 200, answer
    revision = (await shared.store.find(webhook_id)).revision
    await until(lambda: shared.running.index.get(webhook_id).revision >= revision, "the worker knows the new secret")
    return answer


async def test_rotation_with_overlap_reaches_the_receiver(shared: Deployment, workspace: str, call: Call) -> None:
    """Both secrets verify while the overlap lasts, only the new one after a rotation without; no worker restarts."""
    path = f"/{workspace}"
    webhook = await shared.webhook_known_to(shared.running, path, workspace, secret=FIRST)
    webhook_id = webhook.subscription.id
    answer = await rotated(shared, call, webhook_id, secret=SECOND, overlap_seconds=600)
    assert (answer["id"], answer["secret"], answer["warnings"]) == (webhook_id, SECOND, [])
    assert answer["overlap_ends_at"] > rfc3339(int(time.time() * 1000) + 500_000)
    await shared.publish(event("both", workspace=workspace))
    await until(lambda: shared.receiver.at(path), "the delivery with two signatures")
    assert verified_by(shared.receiver.at(path)[0], FIRST, SECOND) == [FIRST, SECOND]
    third = (await rotated(shared, call, webhook_id))["secret"]
    await shared.publish(event("one", workspace=workspace))
    await until(lambda: len(shared.receiver.at(path)) == 2, "the delivery with one signature")
    assert verified_by(shared.receiver.at(path)[1], FIRST, SECOND, third) == [third]
    status, shown = await call("GET", f"/webhooks/{webhook_id}")
    assert status == 200
    assert third not in str(shown)


async def test_waiting_retry_is_signed_with_the_secret_of_its_moment(
    shared: Deployment, workspace: str, call: Call
) -> None:
    """A leaked secret is dead at once, also for what waits in a delay topic."""
    path = f"/{workspace}"
    shared.receiver.answer(path, lambda request: WAITS if request.attempt == 1 else 200)
    webhook = await shared.webhook_known_to(shared.running, path, workspace, secret=FIRST)
    await shared.publish(event("waits", workspace=workspace))
    await until(lambda: shared.receiver.at(path), "the first attempt")
    await rotated(shared, call, webhook.subscription.id, secret=SECOND)
    await until(lambda: len(shared.receiver.at(path)) == 2, "the second attempt")
    first, second = shared.receiver.at(path)
    assert verified_by(first, FIRST, SECOND) == [FIRST]
    assert verified_by(second, FIRST, SECOND) == [SECOND]


async def test_waiting_retry_is_signed_by_every_secret_that_overlaps(
    shared: Deployment, workspace: str, call: Call
) -> None:
    """A retry that waits while the secret is rotated twice carries three signatures, the newest one's alone elsewhere.

    When an overlap is over, its secret signs nothing more, without a change of the webhook or a restart.
    """
    path = f"/{workspace}"
    shared.receiver.answer(path, lambda request: WAITS if request.attempt == 1 else 200)
    webhook = await shared.webhook_known_to(shared.running, path, workspace, secret=FIRST)
    webhook_id = webhook.subscription.id
    await shared.publish(event("overlaps", workspace=workspace))
    await until(lambda: shared.receiver.at(path), "the first attempt")
    await rotated(shared, call, webhook_id, secret=SECOND, overlap_seconds=604_800)
    # Held back, so that a slow machine finds the retry still waiting.
    shared.receiver.answer(path, 503)
    answer = await rotated(shared, call, webhook_id, secret=THIRD, overlap_seconds=8)
    shared.receiver.answer(path, 200)
    delivery_id = shared.delivery_id("evt_overlaps", webhook)
    await shared.until_logged(delivery_id, webhook, DeliveryStatus.DELIVERED)
    retried = shared.receiver.at(path)[-1]
    secrets = (FIRST, SECOND, THIRD)
    assert verified_by(retried, *secrets) == [FIRST, SECOND, THIRD]
    assert len(retried.headers["webhook-signature"].split(" ")) == 3
    alone = hmac.new(THIRD.encode(), retried.body, "sha256").hexdigest()
    assert retried.headers["x-signature"] == alone
    assert retried.headers["x-webhook-signature"] == retried.headers["x-signature-256"] == f"sha256={alone}"
    revision = shared.running.index.get(webhook_id).revision
    ends_at_ms = parse_rfc3339(answer["overlap_ends_at"])
    await until(lambda: time.time() * 1000 >= ends_at_ms, "the overlap is over")
    await shared.publish(event("after", workspace=workspace))
    after = await until_event(shared, path, "evt_after")
    # The first secret's own overlap goes on.
    assert verified_by(after, *secrets) == [FIRST, THIRD]
    assert shared.running.index.get(webhook_id).revision == revision


async def until_event(shared: Deployment, path: str, event_id: str) -> Received:
    """Wait for the request of an event; gives it."""
    await until(lambda: event_id in event_ids(shared.receiver.at(path)), f"the request of {event_id}")
    return next(request for request in shared.receiver.at(path) if event_ids([request]) == [event_id])


async def test_test_event_is_sent_answered_and_logged(shared: Deployment, workspace: str, call: Call) -> None:
    """A sample goes to the endpoint at once; the answer has its shape, and the log marks it as a test."""
    path = f"/{workspace}"
    webhook = await shared.webhook(path, workspace, secret=FIRST)
    own = f"/webhooks/{webhook.subscription.id}"
    status, answer = await call("POST", f"{own}/test", type="post.deleted")
    assert status == 200
    assert answer == {"id": answer["id"], "status": "delivered", "response_code": 200, "response_body": "OK"}
    (received,) = shared.receiver.at(path)
    assert event_ids([received]) == [answer["id"]]
    assert received.headers["x-webhook-event"] == "post.deleted"
    assert verified_by(received, FIRST) == [FIRST]
    _, listed = await call("GET", f"{own}/deliveries")
    assert [(row["event_id"], row["test"], row["status"]) for row in listed["data"]] == [
        (answer["id"], True, "delivered")
    ]
    shared.receiver.answer(path, Answer(500, body=b"oops"))
    status, answer = await call("POST", f"{own}/test")
    assert (status, answer["status"], answer["response_code"], answer["response_body"], answer["error"]) == (
        200,
        "failed",
        500,
        "oops",
        "the endpoint answered 500",
    )
    refused = (await call("POST", f"{own}/test", type="user.nothing"))[0]
    assert (refused, len(shared.receiver.at(path))) == (422, 2)


async def test_test_event_meets_the_same_guard(shared: Deployment, workspace: str) -> None:
    """An address that deliveries may not go to is refused to tests as well; nothing is connected."""
    path = f"/{workspace}"
    webhook = await shared.webhook(path, workspace)
    closed = replace(shared.settings, send=replace(shared.settings.send, allowed_networks=()))
    async with serve(shared, workspace, closed) as call:
        status, answer = await call("POST", f"/webhooks/{webhook.subscription.id}/test")
        assert (status, answer["status"], answer["response_code"]) == (200, "failed", None)
        assert answer["error"].startswith("forbidden_address: ")
        _, listed = await call("GET", f"/webhooks/{webhook.subscription.id}/deliveries?status=failed")
    assert [(row["test"], row["error"]) for row in listed["data"]] == [(True, answer["error"])]
    assert shared.receiver.at(path) == []


async def test_redelivery_sends_the_event_again(shared: Deployment, workspace: str, call: Call) -> None:
    """A delivered event goes out again under the same ids, as attempt 1 of a run of its own."""
    path = f"/{workspace}"
    webhook = await shared.webhook_known_to(shared.running, path, workspace)
    await shared.publish(event("again", workspace=workspace), headers=[("traceparent", b"bad")])
    wanted = shared.delivery_id("evt_again", webhook)
    await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    own = f"/webhooks/{webhook.subscription.id}/deliveries/{wanted}"
    status, answer = await call("POST", f"{own}/redeliver")
    assert (status, answer["id"], answer["status"]) == (202, wanted, "pending")
    await until(lambda: len(shared.receiver.at(path)) == 2, "the second request")
    first, second = shared.receiver.at(path)
    assert (first.body, first.delivery_id, first.attempt) == (second.body, second.delivery_id, second.attempt)

    async def shown() -> Any:
        return (await call("GET", own))[1]

    after = await eventually(shown, lambda row: row["status"] == "delivered", "the redelivery is logged")
    assert [step["replay_id"] for step in after["attempts"]] == [None, answer["replay_id"]]


async def test_expired_event_cannot_be_redelivered(shared: Deployment, workspace: str, call: Call) -> None:
    """410 with the reason where the source topic has dropped the record; the log stays as it is."""
    webhook = await shared.webhook_known_to(shared.running, f"/{workspace}", workspace)
    ((partition, offset),) = await shared.publish(event("old", workspace=workspace))
    wanted = shared.delivery_id("evt_old", webhook)
    before = await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    await shared.until_done("source")
    async with admin_client(shared.settings.kafka.bootstrap_servers) as admin:
        await admin.delete_records({TopicPartition(shared.source, partition): RecordsToDelete(offset + 1)})
    status, problem = await call("POST", f"/webhooks/{webhook.subscription.id}/deliveries/{wanted}/redeliver")
    assert (status, problem["title"]) == (410, "Gone")
    assert f"topic {shared.source} has dropped partition {partition}, offset {offset}" in problem["detail"]
    assert await shared.logged(wanted, webhook) == before


async def test_event_of_a_topic_that_was_made_anew_cannot_be_redelivered(
    shared: Deployment, workspace: str, call: Call, unique_name: Any
) -> None:
    """410 where the topic is deleted, and where another record stands at the offset; never another event's body."""
    bootstrap = shared.settings.kafka.bootstrap_servers
    topic = await make_topic(bootstrap, unique_name("former"))
    webhook = await shared.webhook_known_to(shared.running, f"/{workspace}", workspace)
    ((partition, offset),) = await shared.publish(event("former", workspace=workspace), topic=topic)
    wanted = shared.delivery_id("evt_former", webhook)
    now_ms = int(time.time() * 1000)
    entry = LogEntry(
        wanted,
        workspace,
        webhook.subscription.id,
        "evt_former",
        "user.created",
        "",
        Origin(topic, partition, offset, now_ms),
        "",
        1,
        DeliveryStatus.FAILED,
        now_ms,
    )
    await MongoDeliveryLog(shared.connection.deliveries).write([entry])
    redeliver = ("POST", f"/webhooks/{webhook.subscription.id}/deliveries/{wanted}/redeliver")
    assert (await call(*redeliver))[0] == 202
    await until_event(shared, f"/{workspace}", "evt_former")
    async with admin_client(bootstrap) as admin:
        await admin.delete_topics([topic])

        async def gone() -> bool:
            return topic not in await admin.list_topics()

        await eventually(gone, bool, "the topic is deleted")
    status, problem = await call(*redeliver)
    assert (status, "has dropped" in problem["detail"]) == (410, True), problem
    await make_topic(bootstrap, topic)
    await shared.publish(event("another", workspace=workspace), topic=topic)
    status, problem = await call(*redeliver)
    assert (status, "holds another one" in problem["detail"]) == (410, True), problem
    assert event_ids(shared.receiver.at(f"/{workspace}")) == ["evt_former"]


async def test_api_serves_without_kafka(shared: Deployment, workspace: str, unused_tcp_port: int) -> None:
    """With Kafka out of reach, or none configured, everything else works and a redelivery says what is missing."""
    webhook = await shared.webhook_known_to(shared.running, f"/{workspace}", workspace)
    await shared.publish(event("kept", workspace=workspace))
    wanted = shared.delivery_id("evt_kept", webhook)
    await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    for address, words in ((f"127.0.0.1:{unused_tcp_port}", "can't reach Kafka"), ("", "no address of it")):
        kafka = replace(shared.settings.kafka, bootstrap_servers=address)
        async with serve(shared, workspace, replace(shared.settings, kafka=kafka)) as call:
            own = f"/webhooks/{webhook.subscription.id}"
            status, problem = await call("POST", f"{own}/deliveries/{wanted}/redeliver")
            assert (status, words in problem["detail"]) == (503, True), problem
            assert (await call("POST", f"{own}/test"))[1]["status"] == "delivered"


async def failed_deliveries(shared: Deployment, workspace: str, count: int, every: int = 1) -> tuple[Any, list[str]]:
    """Make a webhook with failed deliveries, whose endpoint then answers; gives it and their ids.

    Args:
        shared: Where.
        workspace: Whose.
        count: How many events; a circuit opens where 20 fail and next to none gets through.
        every: Of so many deliveries one fails.
    """
    path = f"/{workspace}"
    failing = [f"evt_{workspace}-{number}" for number in range(0, count, every)]
    shared.receiver.answer(path, lambda request: 500 if event_ids([request])[0] in failing else 200)
    webhook = await shared.webhook_known_to(shared.running, path, workspace, max_attempts=1)
    await shared.publish(*(event(f"{workspace}-{number}", workspace=workspace) for number in range(count)))
    ids = [shared.delivery_id(each, webhook) for each in failing]
    for each in ids:
        await shared.until_logged(each, webhook, DeliveryStatus.FAILED)
    shared.receiver.answer(path, 200)
    return webhook, ids


SPAN = {"since": "2020-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"}


async def until_replay(call: Call, replay_id: str, status: str) -> Any:
    """Wait for a replay's end."""

    async def look() -> Any:
        return (await call("GET", f"/replays/{replay_id}"))[1]

    return await eventually(look, lambda job: job["status"] == status, f"the replay is {status}", 60)


async def test_replay_sends_a_range_by_status(shared: Deployment, workspace: str, call: Call) -> None:
    """Failed deliveries go out again and delivered ones don't; the job tells how many, and the log under which id."""
    webhook, ids = await failed_deliveries(shared, workspace, 5)
    await shared.publish(event("fine", workspace=workspace))
    fine = shared.delivery_id("evt_fine", webhook)
    await shared.until_logged(fine, webhook, DeliveryStatus.DELIVERED)
    await call("POST", f"/webhooks/{webhook.subscription.id}/test")
    before = len(shared.receiver.at(f"/{workspace}"))
    status, job = await call("POST", f"/webhooks/{webhook.subscription.id}/replay", **SPAN, status="failed")
    assert (status, job["status"], job["webhook_id"]) == (202, "pending", webhook.subscription.id)
    done = await until_replay(call, job["id"], "done")
    assert done["counts"] == {"selected": 5, "produced": 5, "gone": 0, "skipped": 0}
    for each in ids:
        logged = await shared.until_logged(each, webhook, DeliveryStatus.DELIVERED)
        assert logged.run == job["id"]
    again = shared.receiver.at(f"/{workspace}")[before:]
    assert sorted(request.delivery_id for request in again) == sorted(ids)
    assert (await shared.logged(fine, webhook)).run == ""
    _, listed = await call("GET", "/replays")
    assert [row["id"] for row in listed["data"]] == [job["id"]]


async def test_replay_is_taken_over_from_a_worker_that_died(shared: Deployment, workspace: str, call: Call) -> None:
    """A job whose holder says nothing more goes on elsewhere from its checkpoint; what was logged is not repeated."""
    webhook, ids = await failed_deliveries(shared, workspace, 4)
    rows = sorted(
        [await shared.logged(each, webhook) for each in ids], key=lambda row: (row.created_at_ms, row.delivery_id)
    )
    now_ms = int(time.time() * 1000)
    # As a killed worker leaves it: of two taken in hand one was produced and logged, and its lease is about to end.
    job = ReplayJob(
        id=new_run_id(now_ms, draw(10)),
        workspace_id=workspace,
        subscription_id=webhook.subscription.id,
        since_ms=0,
        until_ms=now_ms + 1000,
        wanted=DeliveryStatus.FAILED,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        status=ReplayStatus.CANCELLED,
        selected=4,
        cursor=(rows[1].created_at_ms, rows[1].delivery_id),
        in_hand=(rows[0].delivery_id, rows[1].delivery_id),
    )
    await MongoDeliveryLog(shared.connection.deliveries).write([pending_entry(rows[0], job.id, now_ms)])
    await MongoReplays(shared.connection.replays).insert(job)
    held = {"status": "running", "owner": "dead", "lease_until": {"$add": ["$$NOW", 500]}}
    await shared.connection.replays.update_one({"_id": job.id}, [{"$set": held}])
    done = await until_replay(call, job.id, "done")
    assert done["counts"] == {"selected": 4, "produced": 4, "gone": 0, "skipped": 0}
    for row in rows[1:]:
        await shared.until_logged(row.delivery_id, webhook, DeliveryStatus.DELIVERED)
    again = shared.receiver.at(f"/{workspace}")[4:]
    assert sorted(request.delivery_id for request in again) == sorted(row.delivery_id for row in rows[1:])


async def test_cancelled_replay_stops(shared: Deployment, workspace: str, call: Call) -> None:
    """A job that is cancelled while it runs leaves the rest alone; cancelling it again conflicts."""
    count = 5 * BATCH_DELIVERIES
    webhook, _ = await failed_deliveries(shared, workspace, 2 * count, every=2)
    _, job = await call("POST", f"/webhooks/{webhook.subscription.id}/replay", **SPAN, status="failed")
    await until_replay(call, job["id"], "running")
    status, answer = await call("POST", f"/replays/{job['id']}/cancel")
    assert (status, answer["status"]) == (200, "cancelled")
    assert (await call("POST", f"/replays/{job['id']}/cancel"))[0] == 409
    # Another job runs when the runner has let go of this one.
    _, next_job = await call("POST", f"/webhooks/{webhook.subscription.id}/replay", **SPAN, status="skipped")
    await until_replay(call, next_job["id"], "done")

    await shared.until_done("replay")
    assert len(shared.receiver.at(f"/{workspace}")) < 3 * count
    after = (await call("GET", f"/replays/{job['id']}"))[1]
    assert (after["status"], after["finished_at"]) == ("cancelled", answer["finished_at"])


async def test_backfill_sends_what_the_webhook_never_got(shared: Deployment, workspace: str, call: Call) -> None:
    """Events from while a webhook was inactive go out once, by type and time; what it got before doesn't go out again.

    The log has them as deliveries like any other, so that a second backfill finds nothing to do.
    """
    path = f"/{workspace}"
    webhook = await shared.webhook_known_to(shared.running, path, workspace, events=["user.*"])
    own = f"/webhooks/{webhook.subscription.id}"
    await shared.publish(event("before", workspace=workspace))
    await until_event(shared, path, "evt_before")
    await shared.until_logged(shared.delivery_id("evt_before", webhook), webhook, DeliveryStatus.DELIVERED)
    since = await activate(shared, call, own, "inactive")
    missed = [event(f"missed-{number}", workspace=workspace) for number in range(5)]
    others = [event("other", "post.deleted", workspace), event("foreign", workspace=f"{workspace}-else")]
    await shared.publish(*missed, *others, b"no event")
    await shared.until_done("source")
    until_at = await activate(shared, call, own, "active")
    await shared.publish(event("later", workspace=workspace))
    await until_event(shared, path, "evt_later")
    wrong, problem = await call("POST", f"{own}/replay", **SPAN, source="events", status="failed")
    assert (wrong, [each["field"] for each in problem["errors"]]) == (422, ["status"])
    span = {"since": since, "until": until_at, "source": "events"}
    status, job = await call("POST", f"{own}/replay", **span)
    assert (status, job["source"], job["status"]) == (202, "events", "pending")
    done = await until_replay(call, job["id"], "done")
    assert done["counts"]["produced"] == 5
    assert done["counts"]["selected"] == sum(done["counts"][name] for name in ("produced", "gone", "skipped"))
    for each in missed:
        logged = await shared.until_logged(shared.delivery_id(each["id"], webhook), webhook, DeliveryStatus.DELIVERED)
        assert (logged.run, logged.origin.topic) == (job["id"], shared.source)
    _, again = await call("POST", f"{own}/replay", **SPAN, source="events")
    done = await until_replay(call, again["id"], "done")
    assert done["counts"]["produced"] == 0
    await shared.until_done("replay")
    assert sorted(event_ids(shared.receiver.at(path))) == sorted(
        ["evt_before", "evt_later", *(each["id"] for each in missed)]
    )


async def activate(shared: Deployment, call: Call, own: str, status: str) -> str:
    """Set a webhook's status and wait until the worker knows; gives a time of after that."""
    code, answer = await call("PATCH", own, status=status)
    assert code == 200, answer
    await until(lambda: shared.running.index.get(answer["id"]).status == status, f"the webhook is {status}")
    return rfc3339(int(time.time() * 1000))


async def test_other_workspaces_cannot_act(shared: Deployment, workspace: str, call: Call, unique_name: Any) -> None:
    """With another workspace's key, webhook, delivery and replay are not there."""
    webhook, (delivery_id,) = await failed_deliveries(shared, workspace, 1)
    own = f"/webhooks/{webhook.subscription.id}"
    _, job = await call("POST", f"{own}/replay", **SPAN, status="delivered")
    async with serve(shared, unique_name("other")) as stranger:
        for method, path, sent in (
            ("POST", f"{own}/test", {}),
            ("POST", f"{own}/rotate-secret", {}),
            ("POST", f"{own}/deliveries/{delivery_id}/redeliver", {}),
            ("POST", f"{own}/replay", SPAN),
            ("GET", f"/replays/{job['id']}", {}),
            ("POST", f"/replays/{job['id']}/cancel", {}),
        ):
            status, problem = await stranger(method, path, **sent)
            assert status == 404, (path, problem)
        assert (await stranger("GET", "/replays"))[1] == {"data": [], "next_cursor": None}
    assert len(shared.receiver.at(f"/{workspace}")) == 1
