"""Sending test events: what goes out, what is answered, what the log shows."""

import asyncio
import json

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, shown
from dispatcher.core.errors import InvalidInputError, NotFoundError, TooManyRequestsError
from dispatcher.core.exchange import SendFailure
from dispatcher.core.sealing import Keyring
from dispatcher.operations.audit import Audit
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.rate_limits import EventTestLimits
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import Actor
from tests.fakes.api_stack import URL, HttpsOnly, ManualClock, draws
from tests.fakes.http import MemorySender, answer, failure
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.stores import MemoryAuditStore, MemoryWebhookStore

KEYRING = Keyring([b"k" * 32])
CATALOGUE = load_catalogue(None)


@pytest.fixture
def store():
    return MemoryWebhookStore()


@pytest.fixture
def sender():
    return MemorySender()


@pytest.fixture
def log():
    return MemoryDeliveryLog()


@pytest.fixture
def tests(store, sender, log):
    return EventTests(store, CATALOGUE, sender, log, KEYRING, ManualClock(), draws(), "Test/1.0")


@pytest.fixture
def create(store):
    webhooks = Webhooks(store, ManualClock(), HttpsOnly(), KEYRING, draws())

    async def make(**fields):
        created = await webhooks.create("acme", {"url": URL, "events": ["user.*"], **fields})
        return created.webhook.subscription.id

    return make


async def test_sample_goes_out_as_a_delivery_does(tests, create, sender, log):
    """The type's sample is rendered and signed as a first attempt; result and log entry tell of the same event."""
    sender.answers = lambda _: answer(201, body=b"thanks", duration_ms=7)
    webhook_id = await create()
    result = await tests.send("acme", webhook_id, {"type": "post.deleted"})
    (sent,) = sender.sent
    body = json.loads(sent.request.body)
    assert result.event_id.startswith("evt_test_")
    assert (body["id"], body["type"], body["created_at"]) == (result.event_id, "post.deleted", "2026-01-15T10:30:00Z")
    assert body["data"] == CATALOGUE.types["post.deleted"].sample
    assert (sent.attempt, sent.subscription_id, sent.delivery_id) == (1, webhook_id, result.delivery_id)
    assert sent.headers["webhook-signature"].startswith("v1,")
    assert (result.status, result.response_code, result.response_body, result.error) == (
        DeliveryStatus.DELIVERED,
        201,
        b"thanks",
        "",
    )
    logged = shown(log.documents[result.delivery_id])
    assert (logged.test, logged.event_id, logged.status) == (True, result.event_id, "delivered")
    assert (logged.workspace_id, logged.subscription_id, logged.event_type) == ("acme", webhook_id, "post.deleted")
    assert [step.response_body for step in logged.attempts] == [b"thanks"]


async def test_an_endpoint_that_echoes_the_request(tests, create, sender, log):
    """Neither the result nor the log shows the webhook's key where the endpoint answers with what it was sent."""
    sender.answers = lambda sent: answer(200, body=sent.request.head)
    webhook_id = await create(api_key="the-key-of-it", api_key_header="Authorization")
    result = await tests.send("acme", webhook_id, {})
    assert b"Authorization: Bearer ***\r\n" in result.response_body
    (attempt,) = shown(log.documents[result.delivery_id]).attempts
    assert attempt.response_body == result.response_body


@pytest.mark.parametrize(
    ("response", "code", "error"),
    [
        (answer(500, body=b"oops"), 500, "the endpoint answered 500"),
        (answer(410, body=b""), 410, "the endpoint answered 410"),
        (failure(SendFailure.FORBIDDEN_ADDRESS), 0, "forbidden_address: nobody answered"),
    ],
)
async def test_failure_is_told_and_logged_and_changes_nothing(tests, create, sender, store, log, response, code, error):
    """A refused, failed or even 410 test is failed with its error, once, and leaves the webhook as it was."""
    sender.answers = lambda _: response
    webhook_id = await create()
    before = store.webhooks[webhook_id]
    result = await tests.send("acme", webhook_id, {})
    assert (result.status, result.response_code, result.error) == (DeliveryStatus.FAILED, code, error)
    assert result.response_body == response.body
    assert len(sender.sent) == 1
    assert store.webhooks[webhook_id] is before
    logged = shown(log.documents[result.delivery_id])
    assert (logged.test, logged.status, logged.error, logged.next_attempt_at_ms) == (True, "failed", error, None)


@pytest.mark.parametrize(
    ("events", "expected"), [(["team.*", "user.updated"], "team.member.added"), ([], "account.added")]
)
async def test_without_a_type_the_first_wanted_one_is_sent(tests, create, events, expected):
    """The catalogue's first type that the webhook wants goes out, or its first where it wants none."""
    result = await tests.send("acme", await create(events=events), {})
    assert result.event_type == expected


async def test_inactive_webhook_can_be_tested(tests, create, sender):
    """One tries an endpoint before one activates it."""
    assert (await tests.send("acme", await create(status="inactive"), {})).status == DeliveryStatus.DELIVERED


async def test_webhook_that_cannot_be_rendered_fails_with_words(create, store, sender, log):
    """A secret that can't be opened makes a failed test, not a fault."""
    other = EventTests(store, CATALOGUE, sender, log, Keyring([b"x" * 32]), ManualClock(), draws(), "Test/1.0")
    result = await other.send("acme", await create(), {})
    assert (result.status, result.response_code, sender.sent) == (DeliveryStatus.FAILED, 0, [])
    assert "aborted" in result.error


async def test_result_is_told_though_the_log_is_out_of_reach(tests, create, sender, log):
    """What was sent is answered even where it can't be logged."""
    log.down = True
    assert (await tests.send("acme", await create(), {})).status == DeliveryStatus.DELIVERED


@pytest.mark.parametrize("sent", [{"type": "user.nothing"}, {"type": "user.*"}, {"type": 5}, {"typ": "user.created"}])
async def test_wrong_fields_send_nothing(tests, create, sender, sent):
    """Types without a sample, patterns, other values and other names are refused."""
    with pytest.raises(InvalidInputError) as caught:
        await tests.send("acme", await create(), sent)
    assert list(caught.value.fields) == list(sent)
    assert sender.sent == []


async def test_webhook_of_another_workspace_is_not_there(tests, create, sender):
    """Another workspace can't send to it, nor learn of it."""
    with pytest.raises(NotFoundError):
        await tests.send("globex", await create(), {})
    assert sender.sent == []


@pytest.fixture
def limited(store, sender, log):
    """Test events with a clock, and their limits: two under way of a workspace, three in all, 60 a minute."""
    clock, noted = ManualClock(), MemoryAuditStore()
    limits = EventTestLimits(clock, per_minute=60, each=2, together=3)
    audit = Audit(noted, clock, draws("audit"))
    made = EventTests(store, CATALOGUE, sender, log, KEYRING, clock, draws(), "Test/1.0", limits=limits, audit=audit)
    return made, clock, noted


async def test_a_workspace_sends_so_many_a_minute(limited, create, sender):
    """Ten at once and then one a second; the one too many is sent to nobody and told when to come back."""
    tests, clock, _ = limited
    webhook_id = await create()
    for _ in range(10):
        await tests.send("acme", webhook_id, {})
    with pytest.raises(
        TooManyRequestsError, match="too many test events in a short time; send the request again in 1 s"
    ):
        await tests.send("acme", webhook_id, {})
    assert len(sender.sent) == 10
    clock.ms += 1000
    await tests.send("acme", webhook_id, {})
    assert len(sender.sent) == 11


async def test_few_test_events_are_under_way_at_once(limited, create, store, sender):
    """Endpoints that hang hold a few of a workspace and a bounded number in all, and others get theirs."""
    tests, _, _ = limited
    sender.answers = lambda _: None
    of_each = {"acme": await create()}
    for workspace in ("globex", "initech"):
        webhooks = Webhooks(store, ManualClock(), HttpsOnly(), KEYRING, draws(workspace))
        of_each[workspace] = (await webhooks.create(workspace, {"url": URL, "events": []})).webhook.subscription.id
    order = ("acme", "acme", "acme", "globex", "initech")
    tasks = [asyncio.create_task(tests.send(each, of_each[each], {})) for each in order]
    done, _ = await asyncio.wait(tasks, timeout=0.05)
    assert done == {tasks[2], tasks[4]}
    assert len(sender.sent) == 3
    sender.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, TooManyRequestsError) for each in results] == [False, False, True, False, True]
    await tests.send("initech", of_each["initech"], {})


async def test_it_is_written_down_who_sent_one(limited, create):
    """The audit log names the key, the webhook, the type and what came of it, and holds no answer's text."""
    tests, _, noted = limited
    webhook_id = await create()
    result = await tests.send("acme", webhook_id, {"type": "user.created"}, by=Actor("api_key", "key_1", "ci"))
    (entry,) = noted.entries
    assert (entry.action, entry.target_id, entry.actor.id) == ("webhook.test", webhook_id, "key_1")
    assert entry.changes == {
        "type": (None, "user.created"),
        "delivery_id": (None, result.delivery_id),
        "status": (None, "delivered"),
    }


async def test_what_was_refused_is_not_written_down(limited, create):
    """Only what was sent stands in the audit log."""
    tests, _, noted = limited
    with pytest.raises(InvalidInputError):
        await tests.send("acme", await create(), {"type": "no.such"})
    assert noted.entries == []
