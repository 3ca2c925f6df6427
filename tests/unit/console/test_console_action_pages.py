"""What is done with a webhook: test, rotate, activate, delete."""

import asyncio
import re

import pytest

from tests.fakes.http import answer, failure
from tests.unit.api.test_api_deliveries import delivery


@pytest.fixture
async def own(browser, console):
    return f"/webhooks/{(await console.api.create(name='Mine'))['id']}"


async def test_a_test_event_shows_its_response(browser, console, own):
    """Status and body show in the test log, newest first, and the page's address keeps the log."""
    console.sender.answers = lambda _sent: answer(500, body=b"<b>no</b>")
    await browser.get(f"{own}/test")
    seen = await browser.post(f"{own}/test", {"type": "post.deleted", "log": ""})
    assert "✕ failed" in seen.words
    assert "the endpoint answered 500" in seen.words
    assert "<b>no</b>" in seen.words
    assert "&lt;b&gt;no" in seen.text
    log = re.search(r'name="log" value="([^"]+)"', seen.text)[1]
    console.sender.answers = lambda _sent: answer(200)
    seen = await browser.post(f"{own}/test", {"type": "user.created", "log": log})
    assert seen.words.index("✓ delivered") < seen.words.index("✕ failed")
    assert '<option value="user.created" selected>' in seen.text
    sent = console.sender.sent
    assert [each.headers["x-webhook-event"] for each in sent] == ["post.deleted", "user.created"]


async def test_no_response_has_no_empty_body(browser, console, own):
    """Where no response came, nothing is said of its body."""
    console.sender.answers = lambda _sent: failure()
    await browser.get(f"{own}/test")
    seen = await browser.post(f"{own}/test", {"type": "user.created", "log": ""})
    assert ("nobody answered" in seen.words, "had no body" in seen.words) == (True, False)


async def test_a_test_log_holds_no_foreign_delivery(browser, console, own):
    """Ids in the address that are none of this webhook's show nothing."""
    seen = await browser.get(f"{own}/test?log=del_aaaaaaaaaaaaaaaaaaaaaaaaaa,nonsense,%3Cscript%3E")
    assert (seen.status, "Nothing was sent from this page yet" in seen.words) == (200, True)


async def test_an_unknown_type_is_told(browser, own):
    """A type that has no sample sends nothing."""
    await browser.get(f"{own}/test")
    assert "Nothing was sent" in (await browser.post(f"{own}/test", {"type": "no.such"})).words


async def test_rotating_asks_first_and_shows_the_new_secret_once(browser, console, own):
    """The page before says what happens; after it the new secret shows, and the chosen overlap holds."""
    assert "Rotate the secret?" in (await browser.get(f"{own}/rotate")).words
    seen = await browser.post(f"{own}/rotate", {"overlap_seconds": "3600", "secret": ""})
    assert re.search(r'<pre id="secret"[^>]*>whsec_', seen.text)
    assert "1 former one may still sign" in seen.words
    assert 'id="secret"' not in (await browser.get(own)).text


async def test_a_wrong_new_secret_is_told_beside_its_field(browser, console, own):
    """Too short: 422; the secret there is: 409; nothing is rotated."""
    await browser.get(f"{own}/rotate")
    seen = await browser.post(f"{own}/rotate", {"overlap_seconds": "0", "secret": "short"})
    assert (seen.status, 'id="secret-problem"' in seen.text) == (422, True)
    await browser.post(f"{own}/rotate", {"overlap_seconds": "0", "secret": "a secret of my own"})
    await browser.get(f"{own}/rotate")
    seen = await browser.post(f"{own}/rotate", {"overlap_seconds": "0", "secret": "a secret of my own"})
    assert (seen.status, "secret already" in seen.words) == (409, True)


async def test_a_receiver_has_a_day_unless_something_else_is_chosen(browser, console, own):
    """A day is chosen already; a time that isn't offered rotates nothing and is told beside its field."""
    seen = await browser.get(f"{own}/rotate")
    assert '<option value="86400" selected>' in seen.text
    for fields in ({"overlap_seconds": "5", "secret": ""}, {"secret": ""}):
        seen = await browser.post(f"{own}/rotate", fields)
        assert (seen.status, 'id="overlap_seconds-problem"' in seen.text) == (422, True)
    assert console.api.webhook_store.webhooks[own.rpartition("/")[2]].subscription.revision == 1


async def test_an_odd_new_secret_is_warned_of(browser, own):
    """Rotating tells what creating tells: it looks like a Standard Webhooks secret and is none."""
    await browser.get(f"{own}/rotate")
    seen = await browser.post(f"{own}/rotate", {"overlap_seconds": "0", "secret": "whsec_not base64 at all"})
    assert "Look at the secret: what follows whsec_ is no base64" in seen.words


async def test_a_secret_that_was_typed_is_asked_for_again(browser, own):
    """Where the form comes back for another reason, its empty field says so."""
    await browser.get(f"{own}/rotate")
    seen = await browser.post(f"{own}/rotate", {"overlap_seconds": "5", "secret": "a secret of my own"})
    assert "type it again" in seen.words
    assert "a secret of my own" not in seen.text


async def test_secrets_that_have_ended_are_told_no_more(browser, console, own):
    """Each former secret shows until when it signs, and is gone from the page when it doesn't any more."""
    for seconds in ("3600", "86400"):
        await browser.get(f"{own}/rotate")
        await browser.post(f"{own}/rotate", {"overlap_seconds": seconds, "secret": ""})
    words = (await browser.get(own)).words
    assert "2 former ones may still sign, until 2026-01-16 10:30:00 UTC and 2026-01-15 11:30:00 UTC" in words
    console.api.clock.ms += 3_600_000
    words = (await browser.get(own)).words
    assert "1 former one may still sign, until 2026-01-16 10:30:00 UTC" in words
    console.api.clock.ms += 86_400_000
    await browser.sign_in()
    assert "may still sign" not in (await browser.get(own)).words


@pytest.mark.parametrize("action", ["rotate", "delete", "deactivate"])
async def test_a_question_is_about_the_webhook_as_it_was_shown(browser, console, own, action):
    """Where somebody else changed it meanwhile nothing is done: the question comes again, and its answer counts."""
    await browser.get(f"{own}/{action}")
    await console.api.call("PATCH", own, {"name": "Theirs"})
    path = f"{own}/{'status' if action == 'deactivate' else action}"
    fields = {"overlap_seconds": "0", "status": "inactive"}
    seen = await browser.post(path, {**fields, "revision": "1"})
    assert (seen.status, "Somebody else changed this webhook" in seen.words) == (409, True)
    assert console.api.webhook_store.webhooks[own.rpartition("/")[2]].subscription.revision == 2
    revision = re.search(r'name="revision" value="(\d+)"', seen.text)[1]
    assert (await browser.post(path, {**fields, "revision": revision})).status == 200


async def test_an_old_page_activates_nothing(browser, console, own):
    """A webhook that somebody else changed since isn't switched on from a page that shows it as it was."""
    await console.api.call("PATCH", own, {"status": "inactive"})
    seen = await browser.get(own)
    revision = re.search(r'name="revision" value="(\d+)"', seen.text)[1]
    await console.api.call("PATCH", own, {"url": "https://hooks.example.com/other"})
    seen = await browser.post(f"{own}/status", {"status": "active", "revision": revision})
    assert "Nothing was changed: somebody else changed the webhook" in seen.words
    assert "○ inactive" in seen.words


async def test_deactivating_asks_first_and_says_what_waits(browser, console, own):
    """How many deliveries would be skipped, and where to see them; looking changes nothing."""
    assert f'href="/console{own}/deactivate"' in (await browser.get(own)).text
    assert "No delivery waits" in (await browser.get(f"{own}/deactivate")).words
    for count, told in ((1, "1 delivery waits"), (50, "50 deliveries wait"), (51, "50 or more deliveries wait")):
        waiting = [delivery(number, own.rpartition("/")[2], status="retrying") for number in range(count)]
        console.reader.deliveries = [*waiting, delivery(99, own.rpartition("/")[2])]
        seen = await browser.get(f"{own}/deactivate")
        assert told in seen.words
        assert f'href="/console{own}/deliveries?status=retrying"' in seen.text
    assert "● active" in (await browser.get(own)).words


async def test_the_question_does_not_hang_on_the_count(browser, console, own, monkeypatch):
    """Where the log takes too long it says that the number isn't known."""
    monkeypatch.setattr("dispatcher.console.action_pages.COUNT_SECONDS", 0)

    async def slow(*_args):
        await asyncio.Event().wait()

    monkeypatch.setattr(console.reader, "page", slow)
    assert "How many wait is not known just now" in (await browser.get(f"{own}/deactivate")).words


async def test_a_webhook_is_switched_off_and_on(browser, console, own):
    """The answer changes the status and the page says what that means."""
    await browser.get(own)
    seen = await browser.post(f"{own}/status", {"status": "inactive"})
    assert "○ inactive" in seen.words
    assert "nothing is sent any more" in seen.words
    seen = await browser.post(f"{own}/status", {"status": "active"})
    assert "● active" in seen.words
    seen = await browser.post(f"{own}/status", {"status": "disabled"})
    assert "Nothing was changed" in seen.words


async def test_deleting_asks_first(browser, console, own):
    """Looking at the question deletes nothing; answering it does, and the list says so."""
    await browser.get(f"{own}/delete")
    assert (await browser.get(own)).status == 200
    await browser.get(f"{own}/delete")
    seen = await browser.post(f"{own}/delete")
    assert (seen.path, "Mine was deleted" in seen.words) == ("/console/webhooks", True)
    assert (await browser.get(own)).status == 404


async def test_it_is_written_down_whose_key_sent_a_test_event(console):
    """The audit log names the key, be it of a session or of a call of the API."""
    webhook_id = (await console.api.create())["id"]
    await console.browser.sign_in()
    await console.browser.post(f"/webhooks/{webhook_id}/test", {"type": "user.created"})
    await console.api.call("POST", f"/webhooks/{webhook_id}/test", key="admin")
    noted = [entry for entry in console.audit_store.entries if entry.action == "webhook.test"]
    assert [(entry.target_id, entry.actor.kind, entry.actor.name) for entry in noted] == [
        (webhook_id, "api_key", "all"),
        (webhook_id, "api_key", "admin"),
    ]


async def test_too_many_test_events_are_said_where_they_are_sent(console):
    """The eleventh within a second is sent to nobody; the page says when to come back and keeps the log so far."""
    webhook_id = (await console.api.create())["id"]
    await console.browser.sign_in()
    for _ in range(10):
        await console.browser.post(f"/webhooks/{webhook_id}/test", {"type": "user.created"})
    seen = await console.browser.post(
        f"/webhooks/{webhook_id}/test", {"type": "user.created", "log": "del_" + "a" * 26}
    )
    assert seen.path == f"/console/webhooks/{webhook_id}/test"
    assert "This workspace sent too many test events in a short time; send the request again in 1 s." in seen.words
    assert len(console.sender.sent) == 10
