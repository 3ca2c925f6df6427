"""Requests made again without their secrets."""

import asyncio

import pytest
import trustme

from dispatcher.core.delivery_log import DeliveryStatus, LoggedAttempt
from dispatcher.core.model import Origin
from dispatcher.core.rendering import RequestTemplate
from dispatcher.operations import inspection
from dispatcher.operations.inspection import MASK, MAX_BODY_BYTES, Inspections
from tests.fakes.api_stack import START_MS, api_stack
from tests.fakes.event_records import ENVELOPE, raw
from tests.fakes.kafka import MemoryBroker
from tests.fakes.replays import MemoryRecords
from tests.unit.api.test_api_deliveries import delivery

ATTEMPT = LoggedAttempt("", 2, DeliveryStatus.FAILED, START_MS + 1500, 500.0, 500, "", b"")


@pytest.fixture
def records():
    return MemoryRecords(MemoryBroker())


@pytest.fixture
async def made(records):
    """A webhook with an API key, a delivery of it, and how it is really sent."""
    async with api_stack() as api:
        created = await api.create(
            secret="a secret of my own", api_key="key-1", api_key_header="Authorization", headers={"X-Team": "billing"}
        )
        webhook = api.webhook_store.webhooks[created["id"]]
        record = records.broker.append("events", raw(ENVELOPE))
        row = delivery(1, created["id"], origin=Origin("events", 0, record.offset, START_MS))
        yield webhook, row, RequestTemplate(webhook.subscription, api.keyring, "Test/1.0")


async def test_a_request_shows_as_it_was_but_for_what_is_secret(made, records):
    """Same line, same headers in the same order, same body; signatures and the API key are masked."""
    webhook, row, template = made
    shown = await Inspections(records, "Test/1.0").request(webhook, row, ATTEMPT)
    event, missing = await Inspections(records, "Test/1.0")._event(row)
    sent = template.render(event, row.delivery_id, 2, START_MS + 1000)
    really = [line.split(": ", 1) for line in sent.head.decode().split("\r\n")[1:-2]]
    assert [name for name, _ in shown.headers] == [name for name, _ in really]
    differ = {name: value for (name, value), (_, real) in zip(shown.headers, really, strict=True) if value != real}
    assert differ == {
        "Authorization": f"Bearer {MASK}",
        "X-Webhook-Signature": f"sha256={MASK}",
        "X-Signature-256": f"sha256={MASK}",
        "X-Signature": MASK,
        "webhook-signature": f"v1,{MASK}",
    }
    assert (shown.line, shown.body, shown.size, missing) == (f"POST {webhook.url}", sent.body, len(sent.body), "")


async def test_no_secret_is_opened(made, records, monkeypatch):
    """Only the stand-in's own values are ever opened."""
    opened = []
    original = inspection.Keyring.open

    def spy(self, sealed, *, aad):
        opened.append(original(self, sealed, aad=aad))
        return opened[-1]

    monkeypatch.setattr(inspection.Keyring, "open", spy)
    webhook, row, _ = made
    await Inspections(records, "Test/1.0").request(webhook, row, ATTEMPT)
    assert set(opened) == {MASK.encode()}


async def test_a_client_certificate_changes_nothing_that_is_shown(records):
    """A webhook with a client certificate shows its request like any other, and its key isn't opened."""
    leaf = trustme.CA().issue_cert(common_name="client")
    pair = {
        "client_certificate": leaf.cert_chain_pems[0].bytes().decode(),
        "client_key": leaf.private_key_pem.bytes().decode(),
    }
    async with api_stack() as api:
        created = await api.create(**pair)
        webhook = api.webhook_store.webhooks[created["id"]]
        record = records.broker.append("events", raw(ENVELOPE))
        row = delivery(1, created["id"], origin=Origin("events", 0, record.offset, START_MS))
        shown = await Inspections(records, "Test/1.0").request(webhook, row, ATTEMPT)
    assert ("X-Webhook-Id", created["id"]) in shown.headers
    assert "PRIVATE KEY" not in repr(shown)


async def test_a_body_that_cannot_be_read_again_is_explained(made, records, monkeypatch):
    """Expired, another record in its place, no record at all, Kafka away or too slow: headers still show."""
    webhook, row, _ = made
    shows = Inspections(records, "Test/1.0")

    async def missing(changed=row):
        shown = await shows.request(webhook, changed, ATTEMPT)
        assert (shown.body, shown.size) == (None, 0)
        assert "Content-Length" not in dict(shown.headers)
        assert dict(shown.headers)["X-Webhook-Event"] == "user.created"
        return shown.missing

    other = records.broker.append("events", raw(ENVELOPE, id="evt_other"))
    assert "another record" in await missing(delivery(1, "wh_1", origin=Origin("events", 0, other.offset, 0)))
    broken = records.broker.append("events", b"no event")
    assert "another record" in await missing(delivery(1, "wh_1", origin=Origin("events", 0, broken.offset, 0)))
    assert "test event" in await missing(delivery(1, "wh_1", test=True))
    records.down = True
    assert "Kafka can't be reached" in await missing()
    records.down = False
    monkeypatch.setattr(inspection, "READ_SECONDS", 0.01)
    monkeypatch.setattr(records, "read", lambda *_: asyncio.Event().wait())
    assert "Kafka can't be reached" in await missing()
    monkeypatch.undo()
    records.drop("events", row.origin.offset)
    assert "has expired" in await missing()


async def test_a_large_body_is_cut(made, records):
    """The first 64 KiB are shown, with the size of all."""
    webhook, _, _ = made
    record = records.broker.append("events", raw(ENVELOPE, data={"long": "x" * MAX_BODY_BYTES}))
    row = delivery(1, webhook.subscription.id, origin=Origin("events", 0, record.offset, START_MS))
    shown = await Inspections(records, "Test/1.0").request(webhook, row, ATTEMPT)
    assert (len(shown.body), shown.size > MAX_BODY_BYTES) == (MAX_BODY_BYTES, True)
