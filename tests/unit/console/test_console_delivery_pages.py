"""The delivery log in the console."""

import re

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, LoggedAttempt
from dispatcher.core.model import Origin
from tests.fakes.api_stack import START_MS
from tests.fakes.event_records import ENVELOPE, raw
from tests.unit.api.test_api_deliveries import delivery


def attempt(number, status=DeliveryStatus.RETRYING, **changes):
    values = {
        "run": "",
        "attempt": number,
        "status": status,
        "at_ms": START_MS + number * 60_000,
        "duration_ms": 20.0,
        "response_code": 500,
        "error": "the endpoint answered 500",
        "response_body": b"<i>broken</i> \xff",
    }
    return LoggedAttempt(**{**values, **changes})


@pytest.fixture
async def own(console):
    created = await console.api.create(name="Mine", api_key="my-api-key", secret="my own secret 123")
    return f"/webhooks/{created['id']}"


def webhook_id(own):
    return own.rpartition("/")[2]


async def test_an_empty_log_says_what_to_do(browser, own):
    """Without deliveries there is a way to make one; with filters, a way to see more."""
    assert "No deliveries yet" in (await browser.get(f"{own}/deliveries")).words
    assert "No delivery matches" in (await browser.get(f"{own}/deliveries?status=failed")).words


async def test_filters_stand_in_the_address(browser, console, own):
    """Status, type and times filter; the form shows them; the first page is live and later ones aren't."""
    console.reader.deliveries = [
        delivery(number, webhook_id(own), status=status, event_type=kind)
        for number, (status, kind) in enumerate(
            [(DeliveryStatus.FAILED, "user.created"), (DeliveryStatus.DELIVERED, "post.deleted")] * 40
        )
    ]
    seen = await browser.get(f"{own}/deliveries?status=failed&type=user.created&since=2026-01-15T10:30")
    assert seen.text.count("data-key=") == 40
    assert "Post Deleted" not in seen.words.replace("Post Deleted</option>", "").split("Took")[1]
    assert "<option selected>failed" in seen.text
    assert seen.value("since") == "2026-01-15T10:30"
    assert (await browser.get(f"{own}/deliveries?until=2026-01-15T10:30")).text.count("data-key=") == 0
    first = await browser.get(f"{own}/deliveries")
    assert ("data-live" in first.text, first.text.count("data-key=")) == (True, 50)
    following = re.search(r'href="/console([^"]+)" rel="next"', first.text)[1].replace("&amp;", "&")
    second = await browser.get(following)
    assert ("data-live" in second.text, second.text.count("data-key=")) == (False, 30)


async def test_times_of_a_shared_address_stay_in_their_fields(browser, own):
    """A field can show no time with a zone: it has what the API's clients write in UTC, and a hint beside it."""
    seen = await browser.get(f"{own}/deliveries?since=2026-01-15T11:30:00%2B01:00&until=2026-01-15T10:30:00Z")
    assert (seen.value("since"), seen.value("until")) == ("2026-01-15T10:30:00", "2026-01-15T10:30:00")
    assert ('data-zone-of="since"' in seen.text, 'data-zone-of="until"' in seen.text) == (True, True)


async def test_wrong_filters_are_told_beside_their_field(browser, own):
    """What can't be read is told, and what was typed stays."""
    assert 'id="status-problem"' in (await browser.get(f"{own}/deliveries?status=bogus")).text
    seen = await browser.get(f"{own}/deliveries?type=no+type&since=yesterday")
    assert seen.status == 422
    assert 'id="type-problem"' in seen.text
    assert 'id="since-problem"' in seen.text
    assert seen.value("type") == "no type"


async def test_a_body_that_is_no_text_is_shown_escaped(browser, console, own):
    """Half a surrogate pair, which JSON may hold and UTF-8 can't, breaks no page; the other words stay readable."""
    record = console.records.broker.append(
        "events", raw(ENVELOPE, data={"note": "Grüße HALF"}).replace(b"HALF", b"\\ud800")
    )
    origin = Origin("events", 0, record.offset, START_MS)
    console.reader.deliveries = [delivery(1, webhook_id(own), origin=origin, attempts=[attempt(1)])]
    seen = await browser.get(f"{own}/deliveries/del_001")
    assert seen.status == 200
    assert "Grüße \\ud800" in seen.text.partition("indented")[2].partition("</pre>")[0]


async def test_where_no_response_came_that_is_said(browser, console, own):
    """It isn't called a response without a body."""
    refused = attempt(1, response_code=0, error="connection refused", response_body=b"")
    console.reader.deliveries = [delivery(1, webhook_id(own), attempts=[refused])]
    assert "No response came." in (await browser.get(f"{own}/deliveries/del_001")).words
    console.reader.deliveries = [delivery(1, webhook_id(own), attempts=[attempt(1, response_body=b"")])]
    assert "The response had no body." in (await browser.get(f"{own}/deliveries/del_001")).words


async def test_an_attempt_shows_request_and_response(browser, console, own):
    """The request as it was sent, secrets masked; the body from its record; the response's first bytes as text."""
    record = console.records.broker.append("events", raw(ENVELOPE, data={"note": "<script>x</script>"}))
    console.reader.deliveries = [
        delivery(
            1,
            webhook_id(own),
            status=DeliveryStatus.RETRYING,
            origin=Origin("events", 0, record.offset, START_MS),
            attempts_made=2,
            next_attempt_at_ms=START_MS + 420_000,
            attempts=[attempt(1), attempt(2)],
        )
    ]
    seen = await browser.get(f"{own}/deliveries/del_001")
    assert "Request of attempt 2" in seen.words
    assert "X-API-Key ********" in seen.words
    assert "X-Webhook-Signature sha256=********" in seen.words
    assert "webhook-signature v1,********" in seen.words
    assert "my-api-key" not in seen.text
    assert "my own secret" not in seen.text
    assert '"note": "<script>x</script>"' in seen.words.replace("  ", " ")
    assert "<script>x" not in seen.text
    assert "<i>broken</i> \ufffd" in seen.words
    assert "data-countdown" in seen.text
    assert "in tier 5m" in seen.words
    first = await browser.get(f"{own}/deliveries/del_001?run=&attempt=1")
    assert "Request of attempt 1" in first.words
    assert "X-Webhook-Attempt 1" in first.words


async def test_a_body_that_expired_is_said_so(browser, console, own):
    """Headers still show; the body's place says why it isn't there; a look by the script reads no topic."""
    console.reader.deliveries = [delivery(1, webhook_id(own), attempts=[attempt(1, DeliveryStatus.DELIVERED)])]
    seen = await browser.get(f"{own}/deliveries/del_001")
    assert "The body has expired" in seen.words
    assert "X-Webhook-Event user.created" in seen.words
    console.records.down = True
    assert "Kafka can't be reached now" in (await browser.get(f"{own}/deliveries/del_001")).words
    live = await browser.get(f"{own}/deliveries/del_001", headers={"X-Live": "1"})
    assert (live.status, "Kafka" in live.words) == (200, False)


async def test_redelivering_is_done_in_place(browser, console, own):
    """The button sends it again and leads back to the delivery; what can't be sent is told there."""
    record = console.records.broker.append("events", raw(ENVELOPE))
    console.reader.deliveries = [delivery(1, webhook_id(own), origin=Origin("events", 0, record.offset, START_MS))]
    path = f"{own}/deliveries/del_001"
    assert "Redeliver" in (await browser.get(path)).words
    seen = await browser.post(f"{path}/redeliver")
    assert (seen.path, "On its way again" in seen.words) == (f"/console{path}", True)
    assert len(console.records.broker.on_topic("webhooks.replay")) == 1
    console.records.drop("events", record.offset)
    seen = await browser.post(f"{path}/redeliver")
    assert (seen.status, "kept no more" in seen.words) == (200, True)


async def test_what_would_fail_has_no_button(browser, console, own):
    """A test event, and a delivery of an inactive webhook, can't be sent again."""
    console.reader.deliveries = [delivery(1, webhook_id(own), test=True), delivery(2, webhook_id(own))]
    assert "Redeliver" not in (await browser.get(f"{own}/deliveries/del_001")).words
    await console.api.call("PATCH", own, {"status": "inactive"})
    assert "Redeliver" not in (await browser.get(f"{own}/deliveries/del_002")).words
    seen = await browser.post(f"{own}/deliveries/del_002/redeliver")
    assert "the webhook is inactive" in seen.words.lower()


async def test_a_deleted_webhooks_delivery_still_shows(browser, console, own):
    """What failed can be looked at after its webhook is gone: the response, and why there is no request."""
    console.reader.deliveries = [delivery(1, webhook_id(own), status="failed", attempts=[attempt(1)])]
    await console.api.call("DELETE", own)
    seen = await browser.get(f"{own}/deliveries/del_001")
    assert (seen.status, "The webhook was deleted" in seen.words, "broken" in seen.words) == (200, True, True)
    assert "Redeliver" not in seen.words
    assert f'href="/console{own}"' not in seen.text
