"""Signing in and out, and who is kept out."""

import re
from html import unescape

import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs
from yarl import URL

from dispatcher.console.frame import SESSION_COOKIE
from dispatcher.operations.rate_limits import Rate
from tests.fakes.console_stack import console_stack


async def test_a_page_asks_for_a_key_and_shows_after_signing_in(console):
    """Whoever isn't signed in is led to the sign-in page and back to the page that they wanted."""
    browser = console.browser
    asked = await browser.get("/event-types?q=user")
    assert (asked.status, asked.path) == (200, "/console/sign-in")
    seen = await browser.post("/sign-in", {"api_key": browser.keys["all"], "next": "/console/event-types?q=user"})
    assert (seen.path, "User Created" in seen.words, "Post Published" in seen.words) == (
        "/console/event-types",
        True,
        False,
    )


@pytest.mark.parametrize("secure", ["", "https", "HTTPS, http", "http, https"])
async def test_the_session_cookie_is_kept_from_scripts_and_other_sites(console, secure):
    """HttpOnly, SameSite, bounded to the console's path; Secure where the page came over TLS."""
    await console.browser.get("/sign-in")
    forwarded = {"X-Forwarded-Proto": secure} if secure else {}
    fields = {"api_key": console.browser.keys["all"], "token": console.browser.page.token}
    response = await console.browser.client.post(
        "/console/sign-in", data=fields, headers=forwarded, allow_redirects=False
    )
    assert response.status == 303
    cookie = response.cookies[SESSION_COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/console")
    assert bool(cookie["secure"]) is secure.lower().startswith("https")
    assert int(cookie["max-age"]) == 12 * 3600
    assert fields["api_key"] not in cookie.value


@pytest.mark.parametrize("key", ["whk_unknown", "nonsense", ""])
async def test_a_wrong_key_is_told_and_signs_nobody_in(console, key):
    """401 with a sentence that says what a key looks like or how to make one."""
    await console.browser.get("/sign-in")
    seen = await console.browser.post("/sign-in", {"api_key": key})
    assert (seen.status, "API key" in seen.words) == (401, True)
    assert (await console.browser.get("/webhooks")).path == "/console/sign-in"


async def test_guessing_keys_is_slowed_down():
    """After some wrong keys the address waits, and the API counts the same guesses."""
    async with console_stack(guesses=Rate(1, 3)) as console:
        statuses = []
        for number in range(4):
            await console.browser.get("/sign-in")
            statuses.append((await console.browser.post("/sign-in", {"api_key": f"whk_{number}"})).status)
        assert statuses == [401] * 3 + [429]
        assert console.browser.page.headers["Retry-After"] == "1"
        assert (await console.api.call("GET", "/webhooks", key="whk_x")).status == 429


async def test_too_many_requests_of_a_key_are_refused_with_a_page():
    """The limit of the API holds for pages too."""
    async with console_stack(requests=Rate(1, 3)) as console:
        await console.browser.sign_in()
        statuses = [(await console.browser.get("/event-types")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert console.browser.page.headers["Retry-After"] == "1"


async def test_a_revoked_key_ends_its_session_at_once(console):
    """The second after the key is revoked, and the second that it expires, its session sees nothing more."""
    await console.browser.sign_in("all")
    (key,) = [each for each in await console.api.api_keys.list("acme") if each.name == "all"]
    await console.api.api_keys.revoke("acme", key.id)
    assert (await console.browser.get("/webhooks")).path == "/console/sign-in"
    await console.browser.sign_in("expiring")
    assert (await console.browser.get("/webhooks")).path == "/console/webhooks"
    console.api.clock.ms += 60_000
    assert (await console.browser.get("/webhooks")).path == "/console/sign-in"


async def test_a_key_that_may_not_read_does_not_sign_in(console):
    """403 with the scope that is missing."""
    await console.browser.get("/sign-in")
    seen = await console.browser.post("/sign-in", {"api_key": console.browser.keys["write"]})
    assert (seen.status, "scope read" in seen.words) == (403, True)


@pytest.mark.parametrize(
    "then",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/v1/webhooks",
        "/console/../v1",
        "/console/%2e%2E/v1",
        "/console/.%2e/v1",
        "/consolex",
        "/console\\..\\v1",
        "/console/\\evil.example",
        "/console?a=\r\nSet-Cookie: a=b",
        "/console?a=ä",
    ],
)
async def test_signing_in_never_leads_elsewhere(console, then):
    """A target outside the console is replaced by the console's first page."""
    await console.browser.get("/sign-in")
    fields = {"api_key": console.browser.keys["all"], "token": console.browser.page.token, "next": then}
    response = await console.browser.client.post("/console/sign-in", data=fields, allow_redirects=False)
    assert response.headers["Location"] == "/console"


async def test_signing_out_forgets_the_session(console):
    """After signing out, the next page asks for a key."""
    await console.browser.sign_in()
    seen = await console.browser.post("/sign-out")
    assert (seen.status, seen.path) == (200, "/console/sign-in")
    assert (await console.browser.get("")).path == "/console/sign-in"


async def test_a_form_without_its_token_changes_nothing(browser, console):
    """No token, another session's token, a form sent from another site: 403, and nothing is done."""
    created = await console.api.create(name="Mine")
    path = f"/webhooks/{created['id']}/delete"
    await browser.get(path)
    good = browser.page.token
    async with ClientSession() as other, other.get(console.server.make_url("/console/sign-in")) as response:
        (anothers,) = re.findall(r'name="token" value="([^"]+)"', await response.text())
    statuses = [
        (await browser.post(path, token="")).status,
        (await browser.post(path, token=anothers)).status,
        (await browser.post(path, token="ä")).status,
        (await browser.post(path, token=good, headers={"Sec-Fetch-Site": "cross-site"})).status,
        (await browser.post(path, token=good, headers={"Sec-Fetch-Site": "same-site"})).status,
    ]
    assert statuses == [403] * 5
    assert (await console.api.call("GET", f"/webhooks/{created['id']}")).status == 200
    assert (await browser.post(path, token=good)).path == "/console/webhooks"
    assert (await console.api.call("GET", f"/webhooks/{created['id']}")).status == 404


async def test_signing_in_takes_a_form_that_was_opened(console):
    """A sign-in form that was made elsewhere, or is older than an hour, is refused."""
    key = console.browser.keys["all"]
    assert (await console.browser.post("/sign-in", {"api_key": key}, token="made-up")).status == 403
    console.api.clock.ms += 3600 * 1000
    await console.browser.get("/sign-in")
    console.api.clock.ms += 3600 * 1000
    assert (await console.browser.post("/sign-in", {"api_key": key})).status == 403


async def test_opening_the_sign_in_page_signs_nobody_out(browser):
    """Its token has a cookie of its own, which ends with signing in; it opens no page."""
    await browser.get("/sign-in")
    assert (await browser.get("/webhooks")).path == "/console/webhooks"
    sign_in, token = browser.cookie("dispatcher_sign_in"), (await browser.get("/sign-in")).token
    assert (await browser.get("/sign-in")).token == token, "a form in another tab stays good"
    session = browser.cookie(SESSION_COOKIE)
    assert sign_in
    assert session
    async with ClientSession() as other:
        url = browser.client.make_url("/console/webhooks")
        cookie = {"Cookie": f"{SESSION_COOKIE}={sign_in}"}
        async with other.get(url, headers=cookie, allow_redirects=False) as response:
            assert response.status == 303
    await browser.sign_in("read")
    assert browser.cookie("dispatcher_sign_in") is None


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks?q=a%2Cb%40c%27(d)!",
        "/webhooks?q=caf%C3%A9..au%20lait",
        "/webhooks/wh_1/test?type=user.created&log=del_a%2Cdel_b",
        "?window=24h",
    ],
)
async def test_a_shared_view_is_there_after_signing_in(console, path):
    """Whatever stands in the address survives the sign-in page."""
    response = await console.browser.client.get(URL(f"/console{path}", encoded=True), allow_redirects=False)
    page = await console.browser.client.get(URL(response.headers["Location"], encoded=True))
    text = await page.text()
    fields = {
        "api_key": console.browser.keys["all"],
        "token": re.search(r'name="token" value="([^"]+)"', text)[1],
        "next": unescape(re.search(r'name="next" value="([^"]*)"', text)[1]),
    }
    response = await console.browser.client.post("/console/sign-in", data=fields, allow_redirects=False)
    led, wanted = URL(response.headers["Location"], encoded=True), URL(f"/console{path}", encoded=True)
    assert (led.path, led.query) == (wanted.path, wanted.query)


async def test_a_sign_in_that_is_refused_keeps_where_it_leads(console):
    """An old form's target stands in the fresh one."""
    fields = {"api_key": "whk_x", "next": "/console/event-types?q=user"}
    seen = await console.browser.post("/sign-in", fields, token="made-up")
    assert (seen.status, 'name="next" value="/console/event-types?q=user"' in seen.text) == (403, True)


async def test_a_slash_at_the_end_leads_to_the_first_page(console):
    """`/console/` is the console, signed in or not."""
    assert (await console.browser.get("/")).path == "/console/sign-in"
    await console.browser.sign_in()
    seen = await console.browser.get("/?window=24h")
    assert (seen.status, seen.path) == (200, "/console")


async def test_sign_ins_stand_in_the_log(console):
    """Who signed in from where, and who was refused and why; never a key."""
    browser = console.browser
    with capture_logs() as logged:
        for key in ("whk_wrong", browser.keys["write"], browser.keys["all"]):
            await browser.get("/sign-in")
            await browser.post("/sign-in", {"api_key": key})
    told = [entry for entry in logged if entry["event"] in {"signed in", "sign-in refused"}]
    assert [entry["event"] for entry in told] == ["sign-in refused", "sign-in refused", "signed in"]
    assert {entry["address"] for entry in told} == {"127.0.0.1"}
    assert (told[0]["log_level"], told[2]["workspace_id"]) == ("warning", "acme")
    assert not re.search(r"whk_\w", repr(told))
