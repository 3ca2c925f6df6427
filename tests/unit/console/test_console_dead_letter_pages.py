"""Dead letters in the console."""

import re
from dataclasses import replace
from html import unescape

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter, LoggedAttempt
from dispatcher.core.reruns import ReplaySource, ReplayStatus
from dispatcher.ports import Handled
from tests.fakes.api_stack import START_MS
from tests.fakes.stores import MemoryFailedDeliveries
from tests.unit.api.test_api_deliveries import delivery

HOSTILE = "<script>x</script>"


def letter(number, webhook_id, **fields):
    """Make a failed delivery of `number` seconds before now."""
    values = {
        "status": DeliveryStatus.FAILED,
        "reason": "attempts_exhausted",
        "response_code": 503,
        "error": "the endpoint answered 503",
        "created_at_ms": START_MS - number * 1000,
    }
    return delivery(number, webhook_id, **{**values, **fields})


def tried(number, *, run="", body=b"", code=503):
    error = "the endpoint answered 503" if code else "connection refused"
    return LoggedAttempt(run, number, DeliveryStatus.RETRYING, START_MS, 20.0, code, error, body)


@pytest.fixture
async def mine(console):
    return (await console.api.create(name="Billing"))["id"]


@pytest.fixture
async def other(console):
    return (await console.api.create(name="Audit"))["id"]


@pytest.fixture
async def letters(console, mine, other):
    """Three of one webhook, one of another, and one of another workspace."""
    console.reader.deliveries = [
        letter(1, mine),
        letter(2, mine, event_type="post.deleted"),
        letter(3, mine, reason="gone", response_code=410),
        letter(4, other, response_code=0, error="connection refused"),
        letter(5, "wh_foreign", workspace_id="globex", event_id="evt_foreign"),
    ]


def rows(seen):
    return re.findall(r'<tr data-key="([^"]+)"', seen.text)


def button(seen, text):
    """Return where a button that looks like one leads; None where it isn't drawn."""
    found = re.search(rf'<a class="button[^"]*" href="/console([^"]+)">{text}<', seen.text)
    return unescape(found[1]) if found else None


def jobs(console):
    return list(console.replays.jobs.values())


async def answer(browser, question, **typed):
    """Open a question and send its form as it is drawn, with what is typed besides."""
    seen = await browser.get(question)
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', seen.text.partition("<main")[2])
    fields = {name: unescape(value) for name, value in hidden if name != "token"}
    return await browser.post(question, {**fields, **typed})


async def test_an_empty_list_says_what_to_do(browser):
    """Without dead letters there is a word on what comes here; with filters, a way to see more; no button."""
    seen = await browser.get("/dead-letters")
    assert "Nothing is left to be dealt with" in seen.words
    assert 'aria-current="page">Dead letters<' in seen.text
    assert button(seen, "Replay these") is None
    filtered = await browser.get("/dead-letters?reason=gone")
    assert "No dead letter matches" in filtered.words
    assert button(filtered, "Show all dead letters") == "/dead-letters"


@pytest.mark.usefixtures("letters")
async def test_the_list_has_counts_that_lead_to_their_letters(browser, mine):
    """Newest first, of all webhooks by their names; each count's link narrows the list and keeps its other filters."""
    seen = await browser.get("/dead-letters")
    assert rows(seen) == ["del_001", "del_002", "del_003", "del_004"]
    assert "4 dead letters that nobody has dealt with" in seen.words
    assert "Reason attempts exhausted 3 gone 1" in seen.words
    assert "Webhook Billing 3 Audit 1" in seen.words
    assert "Event type user.created 3 post.deleted 1" in seen.words
    assert "Response 503 2 410 1 none 1" in seen.words or "Response 503 2 none 1 410 1" in seen.words
    (link,) = re.findall(r'<li><a href="/console([^"]+)">Billing<', seen.text)
    narrowed = await browser.get(unescape(link))
    assert (link, rows(narrowed)) == (f"/dead-letters?subscription={mine}", ["del_001", "del_002", "del_003"])
    (link,) = re.findall(r'<li><a href="/console([^"]+)">user.created<', narrowed.text)
    assert rows(await browser.get(unescape(link))) == ["del_001", "del_003"]
    assert rows(await browser.get("/dead-letters?response_code=none")) == ["del_004"]


@pytest.mark.usefixtures("letters")
async def test_filters_stand_in_the_address(browser, mine):
    """The form shows what the address filters by, times in UTC; so do the buttons that act on the selection."""
    seen = await browser.get(
        f"/dead-letters?reason=attempts_exhausted&subscription={mine}&since=2026-01-15T10:29&until=2026-01-15T10:29:59"
    )
    assert rows(seen) == ["del_002"]
    assert '<option value="attempts_exhausted" selected>' in seen.text
    assert (seen.value("subscription"), seen.value("since")) == (mine, "2026-01-15T10:29")
    for text in ("Replay these", "Mark as handled"):
        assert button(seen, text).endswith("&since=2026-01-15T10%3A29&until=2026-01-15T10%3A29%3A59")


@pytest.mark.usefixtures("letters")
async def test_wrong_filters_are_told_and_offer_no_action(browser):
    """What can't be read is told beside its field; nothing can be done to all the letters that then show."""
    seen = await browser.get(
        "/dead-letters?type=no+type&response_code=5x&since=yesterday&reason=lost&subscription=wh_none"
    )
    assert (seen.status, "can't be sent again" in seen.words) == (422, False)
    for name in ("type", "response_code", "since", "reason"):
        assert f'id="{name}-problem"' in seen.text
    assert seen.value("type") == "no type"
    assert (button(seen, "Replay these"), button(seen, "Mark as handled")) == (None, None)
    assert 'href="/console/dead-letters?reason=gone"' in seen.text
    for page in ("replay", "handled"):
        assert (await browser.get(f"/dead-letters/{page}?reason=lost")).status == 422


async def test_long_lists_are_paged(browser, console, mine):
    """The pager keeps the filters; counts are of all pages."""
    console.reader.deliveries = [letter(number, mine) for number in range(1, 71)]
    first = await browser.get("/dead-letters?reason=attempts_exhausted")
    assert (len(rows(first)), "70 dead letters" in first.words) == (50, True)
    following = unescape(re.search(r'href="/console([^"]+)" rel="next"', first.text)[1])
    second = await browser.get(following)
    assert (len(rows(second)), "70 dead letters" in second.words, "reason=" in following) == (20, True, True)


async def test_a_letter_shows_what_the_endpoint_said(browser, console, mine):
    """The last answer as text, every attempt with the latest first, and the way to its delivery."""
    first, second = tried(1, body=b"what it said first"), tried(2, body=HOSTILE.encode())
    made = [first, second, tried(1, run="rpl_1", body=b"<b>last</b>")]
    console.reader.deliveries = [letter(1, mine, attempts=made)]
    seen = await browser.get("/dead-letters/del_001")
    assert "attempts exhausted" in seen.words
    assert "<b>last</b>" in seen.words
    assert "what it said first" not in seen.words
    assert re.findall(r"run=([^&]*)&amp;attempt=(\d)", seen.text) == [("rpl_1", "1"), ("", "2"), ("", "1")]
    assert f'href="/console/webhooks/{mine}/deliveries/del_001"' in seen.text
    console.reader.deliveries = [letter(1, mine, attempts=made[:2], event_type=HOSTILE, error=HOSTILE)]
    for page in ("/dead-letters", "/dead-letters/del_001"):
        seen = await browser.get(page)
        assert (HOSTILE in seen.words, HOSTILE in seen.text) == (True, False)


async def test_a_letter_without_an_answer_says_so(browser, console, mine):
    """No connection, and no attempt at all, have words of their own; what an endpoint said before stays in sight."""
    skipped = replace(tried(3, code=0), error="circuit_open")
    console.reader.deliveries = [
        letter(1, mine, attempts=[tried(1, code=0)]),
        letter(2, mine, reason="expired"),
        letter(3, mine, reason="circuit_open", attempts=[tried(2, body=b"too busy"), skipped]),
    ]
    assert "No response came" in (await browser.get("/dead-letters/del_001")).words
    assert "no attempt was made" in (await browser.get("/dead-letters/del_002")).words
    seen = await browser.get("/dead-letters/del_003")
    assert "said last Attempt 2 Response status 503" in seen.words
    assert ("too busy" in seen.words, "Attempt 3 none skipped: circuit open" in seen.words) == (True, True)


@pytest.mark.usefixtures("letters")
async def test_what_is_no_dead_letter_any_more_is_said_so(browser, console):
    """One that was sent again, and another workspace's, aren't there; the page says where to look."""
    for name in ("del_none", "del_005"):
        seen = await browser.get(f"/dead-letters/{name}")
        assert (seen.status, "none any more" in seen.words) == (404, True)
    await console.browser.sign_in("other")
    assert rows(await browser.get("/dead-letters")) == ["del_005"]


@pytest.mark.usefixtures("letters")
async def test_a_selection_is_sent_again_once_that_is_confirmed(browser, console, mine):
    """The question names how many of which webhooks and makes no job; its form makes one, over several webhooks."""
    seen = await browser.get(button(await browser.get("/dead-letters?reason=attempts_exhausted"), "Replay these"))
    assert "Send these again?" in seen.words
    assert "Dead letters 3" in seen.words
    assert "Billing ● active 2" in seen.words
    assert jobs(console) == []
    seen = await answer(browser, "/dead-letters/replay?reason=attempts_exhausted", rate="2,5")
    (job,) = jobs(console)
    assert (job.source, job.subscription_id, job.rate) == (ReplaySource.DEAD_LETTERS, "", 2.5)
    assert job.failed == FailedFilter(reason="attempts_exhausted")
    assert (job.since_ms, job.until_ms) == (0, START_MS)
    assert seen.path == f"/console/replays/{job.id}"
    assert "Webhook all of the workspace" in seen.words
    assert "dead letters, attempts exhausted" in seen.words
    assert "From the first" in seen.words
    console.replays.jobs[job.id] = replace(job, status=ReplayStatus.DONE, selected=3, subscription_id=mine)
    done = await browser.get(f"/replays/{job.id}")
    assert "Webhook Billing" in done.words
    assert 'href="/console/dead-letters"' in done.text.partition("<main")[2]


@pytest.mark.usefixtures("letters")
async def test_jobs_over_several_webhooks_stand_in_the_list(browser, console):
    """The list of replays tells dead letters of all webhooks from those of one."""
    await answer(browser, "/dead-letters/replay")
    assert "dead letters of all webhooks the first to" in (await browser.get("/replays")).words
    (job,) = jobs(console)
    console.replays.jobs[job.id] = replace(job, subscription_id="wh_x", since_ms=START_MS)
    assert "of all webhooks" not in (await browser.get("/replays")).words


@pytest.mark.usefixtures("letters")
async def test_one_letter_is_sent_again(browser, console, mine):
    """Its page leads to the question about it alone, and back."""
    question = button(await browser.get("/dead-letters/del_002"), "Replay this")
    seen = await browser.get(question)
    assert "Send this again?" in seen.words
    assert button(seen, "Cancel") == "/dead-letters/del_002"
    await answer(browser, question)
    (job,) = jobs(console)
    assert (job.subscription_id, job.failed.delivery_ids) == (mine, ("del_002",))


@pytest.mark.usefixtures("letters")
async def test_a_wrong_rate_is_told_beside_its_field(browser, console):
    """422 with what was typed; no job."""
    for rate in ("fast", "1000", "nan"):
        seen = await answer(browser, "/dead-letters/replay?reason=gone", rate=rate)
        assert (seen.status, 'id="rate-problem"' in seen.text, seen.value("rate")) == (422, True, rate)
    assert jobs(console) == []


@pytest.mark.usefixtures("letters")
async def test_what_would_not_be_sent_has_no_button(browser, console, mine):
    """Letters of an inactive or deleted webhook can only be marked; the form is a conflict all the same."""
    await browser.get(f"/dead-letters/replay?subscription={mine}")
    token = browser.page.token
    await console.api.call("PATCH", f"/webhooks/{mine}", {"status": "inactive"})
    for page in (f"/dead-letters?subscription={mine}", "/dead-letters/del_001"):
        seen = await browser.get(page)
        assert "The webhook is inactive" in seen.words
        assert button(seen, "Mark as handled")
        assert not re.search("Replay th", seen.words)
    assert "Start replay" not in (await browser.get(f"/dead-letters/replay?subscription={mine}")).words
    seen = await browser.post("/dead-letters/replay", {"subscription": mine}, token=token)
    assert (seen.status, "the webhook is inactive" in seen.words.lower(), jobs(console)) == (409, True, [])
    await console.api.call("DELETE", f"/webhooks/{mine}")
    seen = await browser.get("/dead-letters/del_001")
    assert ("The webhook is deleted" in seen.words, "Activate it" in seen.words) == (True, False)
    assert f'href="/console/webhooks/{mine}"' not in seen.text


@pytest.mark.usefixtures("letters")
async def test_a_selection_is_marked_as_handled_once_that_is_confirmed(browser, console):
    """The question marks nothing; its form marks what it asked about, and the list is without them."""
    seen = await browser.get("/dead-letters/handled?reason=attempts_exhausted")
    assert "Mark these as handled?" in seen.words
    assert len(rows(await browser.get("/dead-letters"))) == 4
    await browser.get("/dead-letters/handled?reason=attempts_exhausted")
    seen = await answer(browser, "/dead-letters/handled?reason=attempts_exhausted")
    assert "3 dead letters marked as handled" in seen.words
    assert (seen.path, rows(seen)) == ("/console/dead-letters", ["del_003"])
    handled = await browser.get("/dead-letters/del_001")
    assert "Marked as handled 2026-01-15 10:30:00 UTC" in handled.words
    assert (button(handled, "Replay this"), button(handled, "Mark as handled")) == (None, None)
    question = button(await browser.get("/dead-letters/del_003"), "Mark as handled")
    assert "Mark this as handled?" in (await browser.get(question)).words
    assert "1 dead letter marked" in (await answer(browser, question)).words


@pytest.mark.usefixtures("letters")
async def test_times_of_a_selection_are_utc_for_the_answer_too(browser):
    """What the address says without a zone is marked, and nothing beside it."""
    await answer(browser, "/dead-letters/handled?since=2026-01-15T10:29:57&until=2026-01-15T10:29:59")
    assert rows(await browser.get("/dead-letters")) == ["del_001", "del_004"]


@pytest.mark.usefixtures("letters")
async def test_more_than_one_call_marks_leads_back_to_the_rest(browser, monkeypatch):
    """The list with the same filters says that there are more."""

    async def some(*_):
        return Handled(10_000, more=True)

    monkeypatch.setattr(MemoryFailedDeliveries, "handle", some)
    seen = await answer(browser, "/dead-letters/handled?reason=gone")
    assert "There are more" in seen.words
    assert rows(seen) == ["del_003"]


@pytest.mark.usefixtures("letters")
async def test_what_comes_after_the_question_is_left_alone(browser, console, mine):
    """A delivery that was made after the question was drawn isn't marked along."""
    seen = await browser.get("/dead-letters/handled")
    until = re.search(r'name="until" value="([^"]+)"', seen.text)[1]
    assert until == "2026-01-15T10:30:00Z"
    console.api.clock.ms += 60_000
    console.reader.deliveries.append(letter(-30, mine))
    await browser.post("/dead-letters/handled", {"until": until})
    assert rows(await browser.get("/dead-letters")) == ["del_-30"]


@pytest.mark.usefixtures("letters")
async def test_what_others_dealt_with_meanwhile_is_said_so(browser, console):
    """A question about nothing has no form; an answer that comes too late marks nothing; a bare form is refused."""
    await browser.get("/dead-letters/handled?reason=gone")
    assert "Nothing was marked" in (await browser.post("/dead-letters/handled", {"reason": "expired"})).words
    for page in ("handled", "replay"):
        seen = await browser.get(f"/dead-letters/{page}?reason=expired")
        assert "No dead letter matches any more" in seen.words
        assert '<form method="post"' not in seen.text.partition("<main")[2]
        seen = await browser.post(f"/dead-letters/{page}")
        assert (seen.status, "Nothing was done" in seen.words) == (422, True)
    assert len(rows(await browser.get("/dead-letters"))) == 4


@pytest.mark.usefixtures("letters")
async def test_a_read_only_key_sees_letters_and_no_button(console):
    """It looks at everything, and each way to change something is refused."""
    await console.browser.sign_in("read")
    for page in ("/dead-letters", "/dead-letters/del_001"):
        seen = await console.browser.get(page)
        assert seen.status == 200
        assert not re.search("/dead-letters/(replay|handled)", seen.text)
    for page in ("/dead-letters/replay", "/dead-letters/handled"):
        assert (await console.browser.get(page)).status == 403
        assert (await console.browser.post(page, {"reason": "gone"})).status == 403
    assert jobs(console) == []


@pytest.mark.usefixtures("letters")
async def test_the_list_reads_its_webhooks_at_once(browser, console, monkeypatch):
    """However many it names, the store is asked once for them, and never for one alone."""
    store, asked = console.api.webhook_store, []
    real = type(store).some

    async def some(self, workspace_id, webhook_ids):
        asked.append(sorted(webhook_ids))
        return await real(self, workspace_id, webhook_ids)

    monkeypatch.setattr(type(store), "some", some)
    assert "Webhook Billing 3 Audit 1" in (await browser.get("/dead-letters")).words
    assert [len(ids) for ids in asked] == [2]


@pytest.mark.usefixtures("letters")
async def test_times_of_a_shared_address_stay_in_their_fields(browser):
    """What the API's clients write shows in the fields, in UTC, and filters the same when it is sent again."""
    seen = await browser.get("/dead-letters?since=2026-01-15T10:29:57Z&until=2026-01-15T11:29:59%2B01:00")
    assert (seen.value("since"), seen.value("until")) == ("2026-01-15T10:29:57", "2026-01-15T10:29:59")
    again = await browser.get(f"/dead-letters?since={seen.value('since')}&until={seen.value('until')}")
    assert rows(again) == rows(seen) == ["del_002", "del_003"]
    assert 'data-zone-of="since"' in seen.text
