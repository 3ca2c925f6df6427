"""What is done with a webhook: test, rotate, activate, delete."""

import re

import pytest

from tests.fakes.http import answer


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


async def test_a_webhook_is_switched_off_and_on(browser, console, own):
    """The button changes the status and the page says what that means."""
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
