"""Replays in the console."""

import re
from dataclasses import replace

import pytest

from dispatcher.core.reruns import ReplayCounts, ReplayStatus
from tests.fakes.api_stack import START_MS


@pytest.fixture
async def own(console):
    return f"/webhooks/{(await console.api.create(name='Mine'))['id']}"


async def start(browser, own, **changes):
    await browser.get(f"{own}/replay")
    fields = {"span": "3600", "source": "deliveries", "status": "failed", "since": "", "until": "", **changes}
    return await browser.post(f"{own}/replay", fields)


async def test_a_replay_shows_how_far_it_is_whoever_looks_again(browser, console, own):
    """The form leads to a page of its own whose bar comes from the stored job; it is live until the job ends."""
    seen = await start(browser, own)
    assert re.fullmatch("/console/replays/rpl_.+", seen.path)
    assert "… pending" in seen.words
    (job,) = console.replays.jobs.values()
    assert (job.wanted, job.since_ms, job.until_ms) == ("failed", START_MS - 3_600_000, START_MS)
    counts = ReplayCounts(produced=20, gone=3, skipped=2)
    console.replays.jobs[job.id] = replace(job, status=ReplayStatus.RUNNING, selected=100, counts=counts)
    again = await browser.get(f"/replays/{job.id}")
    assert "25 of 100 deliveries gone through, 25 %" in again.words
    assert re.search(r'<progress [^>]*max="100" value="25"', again.text)
    assert "data-live" in again.text
    console.replays.jobs[job.id] = replace(job, status=ReplayStatus.DONE, selected=0)
    done = await browser.get(f"/replays/{job.id}")
    assert ("data-live" in done.text, re.search(r'max="1" value="1"', done.text) is not None) == (False, True)
    listed = await browser.get("/replays")
    assert "✓ done" in listed.words


async def test_a_time_of_ones_own_is_utc(browser, console, own):
    """Fields without a zone are meant in UTC, with or without seconds."""
    await start(browser, own, span="", since="2026-01-15T09:00", until="2026-01-15T10:00:30", status="")
    (job,) = console.replays.jobs.values()
    assert (job.since_ms, job.until_ms, job.wanted) == (START_MS - 5_400_000, START_MS - 1_770_000, None)


async def test_events_have_no_status(browser, console, own):
    """A backfill is asked for without the status that stands in the form."""
    await start(browser, own, source="events")
    (job,) = console.replays.jobs.values()
    assert (job.source, job.wanted) == ("events", None)


async def test_wrong_times_are_told_beside_their_field(browser, console, own):
    """422 with what was typed, and no job."""
    seen = await start(browser, own, span="", since="", until="2026-01-15T10:00", status="delivered")
    assert (seen.status, 'id="since-problem"' in seen.text) == (422, True)
    assert seen.value("until") == "2026-01-15T10:00"
    assert '<option value="delivered" selected>' in seen.text
    assert console.replays.jobs == {}


async def test_an_inactive_webhook_offers_no_replay(browser, console, own):
    """Its page says what to do first; sending the form all the same is a conflict."""
    await browser.get(f"{own}/replay")
    token = browser.page.token
    await console.api.call("PATCH", own, {"status": "inactive"})
    assert "Activate it first" in (await browser.get(f"{own}/replay")).words
    assert (await browser.post(f"{own}/replay", {"span": "3600"}, token=token)).status == 409


async def test_a_replay_can_be_cancelled(browser, console, own):
    """A page asks first and says how far it is; of one that has ended it says so."""
    seen = await start(browser, own)
    path = seen.path.removeprefix("/console")
    assert f'href="/console{path}/cancel"' in seen.text
    assert "nothing of it is sent" in (await browser.get(f"{path}/cancel")).words
    (job,) = console.replays.jobs.values()
    counts = ReplayCounts(produced=20, gone=3, skipped=2)
    console.replays.jobs[job.id] = replace(job, status=ReplayStatus.RUNNING, selected=100, counts=counts)
    question = await browser.get(f"{path}/cancel")
    assert "25 of 100 are done with, 20 of them sent again; the other 75 are left out" in question.words
    seen = await browser.post(f"{path}/cancel")
    assert "cancelled" in seen.words
    assert "Cancel replay" not in seen.words
    assert "there is nothing to cancel" in (await browser.get(f"{path}/cancel")).words
    assert "nothing to cancel" in (await browser.post(f"{path}/cancel")).words


async def test_an_empty_list_says_where_replays_start(browser):
    """Without replays there is a word on what one does."""
    assert "No replays yet" in (await browser.get("/replays")).words


async def test_a_deleted_webhooks_replay_still_shows(browser, console, own):
    """Its page says that the webhook is gone."""
    seen = await start(browser, own)
    await console.api.call("DELETE", own)
    assert "deleted since" in (await browser.get(seen.path.removeprefix("/console"))).words
