"""A form that arrives twice is done once."""

import asyncio
import re

import pytest

from dispatcher.console.forms import FORM_ID
from tests.fakes.api_stack import START_MS
from tests.fakes.stores import MemoryIdempotencyStore
from tests.unit.api.test_api_deliveries import delivery
from tests.unit.console.test_console_webhook_pages import FIELDS

NEW = {"name": "Mine", "url": "https://hooks.example.com/in", "events": "user.created"}


@pytest.fixture
async def own(console):
    return f"/webhooks/{(await console.api.create(name='Mine'))['id']}"


async def twice(browser, page, path, fields):
    """Open a page and send its form twice, as a second click does; gives where both led."""
    await browser.get(page)
    sent = {**fields, "token": browser.page.token, FORM_ID: browser.page.form_id}
    answers = [await browser.client.post(f"/console{path}", data=sent, allow_redirects=False) for _ in range(2)]
    assert [answer.status for answer in answers] == [303, 303], await answers[-1].text()
    return [answer.headers["Location"] for answer in answers]


async def count(console):
    return len((await (await console.api.call("GET", "/webhooks")).json())["data"])


async def test_a_webhook_is_created_once_and_its_secret_shows(browser, console):
    """Both answers lead to the one webhook, and its page shows the one secret."""
    first, second = await twice(browser, "/webhooks/new", "/webhooks/new", NEW)
    assert first == second
    assert await count(console) == 1
    assert 'id="secret"' in (await browser.get(first.removeprefix("/console"))).text


@pytest.fixture
async def together(browser, console, monkeypatch):
    """Two answers to a form that is sent again while its first work is under way; that ends when both have begun."""
    monkeypatch.setattr("dispatcher.operations.idempotency._FIRST_LOOK_SECONDS", 0.001)
    store, begun, met = console.api.webhook_store, asyncio.Event(), asyncio.Event()
    insert, claim = store.insert, MemoryIdempotencyStore.claim

    async def slow(webhook, **options):
        begun.set()
        await met.wait()
        return await insert(webhook, **options)

    async def watched(self, wanted):
        found = await claim(self, wanted)
        if found is not None:
            met.set()
        return found

    monkeypatch.setattr(store, "insert", slow)
    monkeypatch.setattr(MemoryIdempotencyStore, "claim", watched)

    async def send(sent):
        return await browser.client.post("/console/webhooks/new", data=sent, allow_redirects=False)

    async def both():
        await browser.get("/webhooks/new")
        sent = {**NEW, "token": browser.page.token, FORM_ID: browser.page.form_id}
        async with asyncio.timeout(20):
            first = asyncio.create_task(send(sent))
            await begun.wait()
            second = await send(sent)
            return await first, second

    return both


async def test_two_that_arrive_together_are_one(console, together):
    """The second waits for the first, in whichever process that is."""
    first, second = await together()
    assert first.headers["Location"] == second.headers["Location"]
    assert await count(console) == 1


async def test_what_takes_long_is_told(console, together, monkeypatch):
    """The second is told that it is still being done, and does nothing."""
    monkeypatch.setattr("dispatcher.console.once.WAIT_SECONDS", 0)
    first, second = await together()
    assert (first.status, second.status, "still being done" in await second.text()) == (303, 409, True)
    assert await count(console) == 1


async def test_a_secret_is_rotated_once(browser, console, own):
    """The secret that shows is the one that signs, whichever answer arrives last."""
    fields = {"overlap_seconds": "3600", "secret": "", "revision": "1"}
    await twice(browser, f"{own}/rotate", f"{own}/rotate", fields)
    webhook = console.api.webhook_store.webhooks[own.rpartition("/")[2]]
    assert (len(webhook.subscription.secrets), webhook.subscription.revision) == (2, 2)
    assert re.search(r'<pre id="secret"[^>]*>whsec_', (await browser.get(own)).text)


async def test_a_replay_is_made_once(browser, console, own):
    """One job, whose page both answers lead to."""
    fields = {"span": "3600", "source": "deliveries", "status": "failed"}
    first, second = await twice(browser, f"{own}/replay", f"{own}/replay", fields)
    assert (first == second, len(console.replays.jobs)) == (True, 1)


async def test_dead_letters_are_replayed_once(browser, console, own):
    """One job for the selection."""
    webhook_id = own.rpartition("/")[2]
    failed = delivery(2, webhook_id, status="failed", reason="gone", created_at_ms=START_MS - 1000)
    console.reader.deliveries = [failed]
    page = "/dead-letters/replay?reason=gone"
    fields = {"reason": "gone", "until": "2026-01-15T10:30:00Z"}
    first, second = await twice(browser, page, page, fields)
    assert (first == second, len(console.replays.jobs)) == (True, 1)


async def test_a_test_event_is_sent_once(browser, console, own):
    """One request for two clicks."""
    await twice(browser, f"{own}/test", f"{own}/test", {"type": "user.created", "log": ""})
    assert len(console.sender.sent) == 1


async def test_a_webhook_is_deleted_once(browser, own):
    """The second answer isn't that there is no such webhook."""
    assert await twice(browser, f"{own}/delete", f"{own}/delete", {"revision": "1"}) == ["/console/webhooks"] * 2


async def test_saving_twice_says_saved_twice(browser, own):
    """The second isn't told that somebody else changed the webhook."""
    fields = {**FIELDS, "name": "New", "events": "user.created", "revision": "1"}
    await twice(browser, f"{own}/edit", f"{own}/edit", fields)
    assert "Saved." in (await browser.get(own)).words


async def test_a_form_with_other_words_in_it_is_told(browser, console):
    """What was sent first counts; the second is refused and done nothing of."""
    await browser.get("/webhooks/new")
    form_id = browser.page.form_id
    await browser.post("/webhooks/new", NEW)
    seen = await browser.post("/webhooks/new", {**NEW, "name": "Other", FORM_ID: form_id})
    assert (seen.status, "sent before with something else in it" in seen.words) == (409, True)
    assert await count(console) == 1


async def test_each_page_has_a_form_of_its_own(browser, console):
    """A page that is opened again is another form: its webhook is another one."""
    for _ in range(2):
        await browser.get("/webhooks/new")
        await browser.post("/webhooks/new", NEW)
    assert await count(console) == 2


async def test_what_failed_can_be_sent_again(browser, console, monkeypatch):
    """A form whose work failed, or was refused, is done when it comes again."""
    await browser.get("/webhooks/new")
    token, form_id = browser.page.token, browser.page.form_id
    insert = console.api.webhook_store.insert

    async def broken(_webhook, **_options):
        raise RuntimeError("broken")

    monkeypatch.setattr(console.api.webhook_store, "insert", broken)
    sent = {**NEW, FORM_ID: form_id}
    assert (await browser.post("/webhooks/new", sent, token=token)).status == 500
    monkeypatch.setattr(console.api.webhook_store, "insert", insert)
    assert (await browser.post("/webhooks/new", sent, token=token)).status == 200
    assert await count(console) == 1


async def test_what_was_refused_can_be_asked_for_again(browser, console, own):
    """A delivery that could not be sent again is sent when the same form comes once more."""
    webhook_id = own.rpartition("/")[2]
    console.reader.deliveries = [delivery(1, webhook_id)]
    shown = f"{own}/deliveries/del_001"
    await browser.get(shown)
    token, form_id = browser.page.token, browser.page.form_id
    await console.api.call("PATCH", own, {"status": "inactive"})
    seen = await browser.post(f"{shown}/redeliver", {FORM_ID: form_id}, token=token)
    assert "Not sent: The webhook is inactive" in seen.words
    await console.api.call("PATCH", own, {"status": "active"})
    seen = await browser.post(f"{shown}/redeliver", {FORM_ID: form_id}, token=token)
    assert "The webhook is inactive" not in seen.words


@pytest.mark.parametrize("form_id", ["", "x" * 65])
async def test_a_form_without_an_id_is_done(browser, console, form_id):
    """A page from before it had one still works."""
    await browser.get("/webhooks/new")
    assert (await browser.post("/webhooks/new", {**NEW, FORM_ID: form_id})).status == 200
    assert await count(console) == 1
