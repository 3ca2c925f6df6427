"""What a webhook missed while it was disabled, offered where it is made active again."""

import re
from dataclasses import replace
from html import unescape

import pytest

from tests.fakes.api_stack import START_MS

MISSED_SINCE_MS = START_MS - 7_200_000
OFFER = "?missed_since=2026-01-15T08%3A30%3A00Z&missed_until=2026-01-15T10%3A30%3A05Z"


@pytest.fixture
async def own(console):
    """A webhook that the dispatcher has disabled, two hours ago."""
    created = await console.api.create(name="Mine")
    stored = console.api.webhook_store.webhooks[created["id"]]
    console.api.webhook_store.webhooks[created["id"]] = replace(
        stored,
        subscription=replace(stored.subscription, status="disabled"),
        disabled_reason="failing",
        disabled_at_ms=MISSED_SINCE_MS,
    )
    return f"/webhooks/{created['id']}"


def offered(seen):
    return "Send what was missed" in seen.words


def fields_of_offer(seen):
    """Return where the offer's form goes, and what it sends."""
    form = re.search(r'<form method="post" action="/console([^"]+/replay)">(.*?)</form>', seen.text)
    hidden = re.findall(r'name="([^"]+)" value="([^"]*)"', form[2])
    return form[1], {name: unescape(value) for name, value in hidden if name != "token"}


async def test_activating_a_disabled_webhook_offers_what_it_missed(browser, console, own):
    """The offer names the time, survives a reload, and its button makes the job that reads events again."""
    assert "what it missed is then offered" in (await browser.get(own)).words
    seen = await browser.post(f"{own}/status", {"status": "active"})
    assert offered(seen)
    assert "From 2026-01-15 08:30:00 UTC to 2026-01-15 10:30:05 UTC nothing was sent to it" in seen.words
    assert offered(await browser.get(f"{own}{OFFER}"))
    console.api.clock.ms += 60_000
    seen = await browser.post(*fields_of_offer(browser.page))
    (job,) = console.replays.jobs.values()
    assert (job.source, job.wanted) == ("events", None)
    assert (job.since_ms, job.until_ms) == (MISSED_SINCE_MS, START_MS + 5000)
    assert seen.path == f"/console/replays/{job.id}"
    assert not offered(await browser.get(own))


async def test_saving_the_form_offers_it_too(browser, own):
    """Whoever activates a webhook by its form is offered the same; a change that leaves it disabled offers nothing."""
    for status, expected in (("disabled", False), ("active", True)):
        seen = await browser.get(f"{own}/edit")
        fields = {"name": f"Mine, {status}", "url": seen.value("url"), "status": status, "events": "user.created"}
        fields["revision"] = re.search(r'name="revision" value="(\d+)"', seen.text)[1]
        saved = await browser.post(f"{own}/edit", fields)
        assert (saved.path, "Saved." in saved.words, offered(saved)) == (f"/console{own}", True, expected)


async def test_no_other_change_offers_anything(browser, own):
    """Deactivating a disabled webhook, and activating one that somebody had deactivated, fill nothing."""
    await browser.get(own)
    assert not offered(await browser.post(f"{own}/status", {"status": "inactive"}))
    assert not offered(await browser.post(f"{own}/status", {"status": "active"}))


async def test_the_offers_times_stand_in_the_form_where_it_is_refused(browser, console, own):
    """Whole seconds around the time that was missed; who is refused for now finds them in the replay's form."""
    await console.api.call("PATCH", own, {"status": "active"})
    query = "?missed_since=2026-01-15T08:30:00.900Z&missed_until=2026-01-15T10:20:00.100Z"
    form, fields = fields_of_offer(await browser.get(f"{own}{query}"))
    assert (fields["since"], fields["until"]) == ("2026-01-15T08:30:00", "2026-01-15T10:20:01")
    token = browser.page.token
    await console.api.call("PATCH", own, {"status": "inactive"})
    assert (await browser.post(form, fields, token=token)).status == 409
    await console.api.call("PATCH", own, {"status": "active"})
    seen = await browser.post(form, {**fields, "until": ""}, token=token)
    assert (seen.status, seen.value("since")) == (422, "2026-01-15T08:30:00")


@pytest.mark.parametrize(
    "query",
    [
        "?missed_since=2026-01-15T08:30:00Z",
        "?missed_since=x&missed_until=%3Cscript%3E",
        "?missed_since=2026-01-15T10:30:00Z&missed_until=2026-01-15T10:30:00Z",
    ],
)
async def test_an_address_that_says_no_time_offers_nothing(browser, console, own, query):
    """What can't be read, or is no time at all, is left out."""
    await console.api.call("PATCH", own, {"status": "active"})
    seen = await browser.get(f"{own}{query}")
    assert (seen.status, offered(seen)) == (200, False)


async def test_the_offer_shows_only_where_it_would_work(console, own):
    """A disabled webhook takes no replay, and a key that may only read makes none."""
    browser = console.browser
    await browser.sign_in()
    assert not offered(await browser.get(f"{own}{OFFER}"))
    await console.api.call("PATCH", own, {"status": "active"})
    assert offered(await browser.get(f"{own}{OFFER}"))
    await browser.sign_in("read")
    assert not offered(await browser.get(f"{own}{OFFER}"))
