"""Webhooks as documents: round trips, unknown fields, broken ones, shared memory."""

from dataclasses import fields, replace

import bson
import pytest
from bson.codec_options import CodecOptions, DatetimeConversion

from dispatcher.core.model import Subscription, Webhook
from dispatcher.mongo.webhook_documents import (
    SUBSCRIPTION_FIELDS,
    BrokenWebhookError,
    SubscriptionReader,
    document_of,
    subscription_of,
    webhook_of,
)
from tests.unit.mongo.samples import START_MS, webhook

_STORED = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)


def stored(wanted):
    return bson.decode(bson.encode(document_of(wanted)), _STORED)


def contents(thing):
    found = {field.name: getattr(thing, field.name) for field in fields(thing)}
    if isinstance(thing, Webhook):
        found["subscription"] = contents(found["subscription"])
    return found


FULL = webhook(
    description="d",
    disabled_reason="gone",
    disabled_at_ms=START_MS,
    status="disabled",
    method="PUT",
    content_type="application/x-www-form-urlencoded",
    payload_format="context",
    max_attempts=20,
    api_key_header="Authorization",
    timeout_seconds=30,
    revision=7,
)
BARE = webhook(
    name=None,
    api_key=None,
    client_certificate=None,
    client_key=None,
    rate_limit=None,
    headers=(),
    events=(),
    secrets=(),
)


@pytest.mark.parametrize("wanted", [FULL, BARE])
def test_a_webhook_survives_storing(wanted):
    """Every field of a webhook is read as it was stored."""
    assert contents(webhook_of(stored(wanted))) == contents(wanted)


def test_the_index_fetches_all_that_it_reads():
    """A subscription is the same from the fields that the index fetches as from the whole document."""
    projected = {key: value for key, value in stored(FULL).items() if key in {"_id", *SUBSCRIPTION_FIELDS}}
    assert contents(subscription_of(projected)) == contents(FULL.subscription)


def test_unknown_fields_do_no_harm():
    """A field that a later version added is passed over."""
    assert contents(webhook_of(stored(FULL) | {"colour": {"new": 1}})) == contents(FULL)


@pytest.mark.parametrize("url", ["", "ftp://x", "https://user@x/", "https://x/\x00"])
def test_an_unusable_url_is_none(url):
    """A stored URL that isn't acceptable any more leaves the subscription readable, without an endpoint."""
    assert subscription_of(stored(FULL) | {"url": url}).url is None


@pytest.mark.parametrize(
    "damage",
    [
        {"v": 2},
        {"v": "x"},
        {"_id": 5},
        {"url": None},
        {"events": None},
        {"events": [1]},
        {"secrets": [{}]},
        {"secrets": "no"},
        {"status": "on"},
        {"revision": None},
        {"headers": [["X-A"]]},
        {"headers": {"X-A": 1}},
        {"max_attempts": "many"},
        {"workspace_id": 5},
        {"created_at": "yesterday"},
    ],
)
def test_a_broken_document_is_named(damage):
    """Whatever is wrong with a document, the error is one kind, names its id and shows none of its values."""
    with pytest.raises(BrokenWebhookError, match="mend its document") as caught:
        webhook_of(stored(FULL) | damage)
    assert str((stored(FULL) | damage)["_id"]) in str(caught.value)
    assert "hooks.example.com" not in str(caught.value)


def test_what_repeats_is_shared():
    """Two subscriptions of one workspace share their strings and patterns."""
    reader = SubscriptionReader()
    one, two = (reader.read(stored(webhook(number))) for number in (1, 2))
    assert isinstance(one, Subscription)
    assert one.workspace_id is two.workspace_id
    assert one.events is two.events
    assert one.method is two.method
    assert one.url.host is two.url.host is one.url.host_header


def test_a_newer_subscription_is_told_from_an_older_one():
    """The revision is stored with the webhook."""
    newer = replace(FULL, subscription=replace(FULL.subscription, revision=8))
    assert webhook_of(stored(newer)).subscription.revision == 8
