"""Forms whose session has ended, or that belong to another key: what was typed is kept."""

import re
from html import unescape

import pytest
from multidict import MultiDict

from dispatcher.console.forms import FORM_ID, TOKEN, Refusal, check_token, content_of, to_type_again
from dispatcher.console.frame import SESSION_COOKIE
from dispatcher.console.sessions import Session

NEW = {
    "name": 'Mine "<b>',
    "url": "https://hooks.example.com/in",
    "events": "user.created",
    "secret": "a secret of my own",
}
SAME = {"Sec-Fetch-Site": "same-origin"}


def fields_of(seen):
    """Return what the form of a page sends, and where."""
    action = re.search(r'<form method="post" action="/console([^"]+)"', seen.text)[1]
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', seen.text)
    return action, [(name, unescape(value)) for name, value in hidden if name != TOKEN]


async def count(console):
    return len((await (await console.api.call("GET", "/webhooks")).json())["data"])


async def test_a_session_that_ends_keeps_the_form(browser, console):
    """After twelve hours the form comes back whole but for its secret, and is done after signing in again."""
    await browser.get("/webhooks/new")
    console.api.clock.ms += 12 * 3600 * 1000
    kept = await browser.post("/webhooks/new", NEW, headers=SAME)
    assert (kept.status, "Your session has ended" in kept.words) == (401, True)
    assert "a secret of my own" not in kept.text
    assert 'name="secret" type="password" required' in kept.text
    path, fields = fields_of(kept)
    token = kept.token
    await browser.sign_in()
    seen = await browser.post(path, [*fields, ("secret", "a secret of my own")], token=token)
    assert (seen.status, ">a secret of my own</pre>" in seen.text) == (200, True)
    (row,) = (await (await console.api.call("GET", "/webhooks")).json())["data"]
    assert (row["name"], row["events"]) == (NEW["name"], ["user.created"])


async def test_a_form_of_another_keys_page_asks_first(browser, console):
    """Whoever signed in with another key is told the workspace; nothing is done until the form is sent from there."""
    await browser.get("/webhooks/new")
    token = browser.page.token
    await browser.sign_in("other")
    kept = await browser.post("/webhooks/new", NEW, token=token, headers=SAME)
    assert (kept.status, "globex" in kept.words) == (403, True)
    assert await count(console) == 0
    path, fields = fields_of(kept)
    assert (await browser.post(path, [*fields, ("secret", "a secret of my own")])).status == 200
    assert (await browser.get("/webhooks")).text.count("Mine &#34;&lt;b&gt;") == 1
    assert await count(console) == 0


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_strangers_form_is_not_kept(browser, console, headers):
    """Without a browser's word that one of our pages sent it, a form with a wrong token is refused."""
    await browser.get("/webhooks/new")
    seen = await browser.post("/webhooks/new", NEW, token="made-up", headers=headers)
    assert (seen.status, "Send it again" in seen.words) == (403, False)
    assert await count(console) == 0


@pytest.mark.parametrize("fields", [{}, {"token": "t", "form_id": "f"}])
async def test_a_form_that_says_nothing_leads_to_the_sign_in_page(console, fields):
    """Signing out, and what else was only a button, needs no keeping."""
    response = await console.browser.client.post("/console/sign-out", data=fields, allow_redirects=False)
    assert (response.status, response.headers["Location"]) == (303, "/console/sign-in")


async def test_another_sites_form_is_not_echoed(console):
    """To somebody who isn't signed in, a form of another site shows nothing of itself."""
    response = await console.browser.client.post(
        "/console/webhooks/new", data=NEW, headers={"Sec-Fetch-Site": "cross-site"}, allow_redirects=False
    )
    assert response.status == 303


async def test_signing_in_again_leaves_open_forms_good(browser, console):
    """Another session of the same key takes a form that the one before it has opened."""
    await browser.get("/webhooks/new")
    token, session = browser.page.token, browser.cookie(SESSION_COOKIE)
    await browser.sign_in()
    assert browser.cookie(SESSION_COOKIE) != session
    assert (await browser.post("/webhooks/new", NEW, token=token)).status == 200
    assert await count(console) == 1


def test_a_token_is_compared_whole():
    """Nothing, a part, and another one are refused; so is any where there is no session."""
    session = Session("token", b"", 1)
    check_token(MultiDict({TOKEN: "token"}), session)
    for form, of in ((MultiDict(), session), (MultiDict({TOKEN: "toke"}), session), (MultiDict({TOKEN: ""}), None)):
        with pytest.raises(Refusal):
            check_token(form, of)


def test_what_every_form_carries_is_no_content():
    """Token and id say nothing; secrets that were typed have to be typed again, empty ones don't."""
    form = MultiDict([(TOKEN, "t"), (FORM_ID, "f"), ("events", "a"), ("events", "b"), ("secret", "s"), ("api_key", "")])
    assert content_of(form) == [("events", "a"), ("events", "b"), ("secret", "s"), ("api_key", "")]
    assert list(to_type_again(form)) == ["secret"]
