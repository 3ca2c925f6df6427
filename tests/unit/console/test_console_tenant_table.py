"""Every page and form of the console, by scope and workspace: a table made of the router, so that none is left out."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient

from dispatcher.console.application import ConsoleOperations, all_pages
from dispatcher.console.routes import Page
from dispatcher.console.sign_in import SignIn
from tests.fakes.api_stack import URL
from tests.fakes.console_stack import Browser, ConsoleStack, Seen, console_stack
from tests.fakes.tenants import (
    OWN,
    Tenant,
    differing,
    filled,
    settle_both,
    shows_any,
    snapshot,
    trespasses,
    without_ids,
)

_NOTHING = SimpleNamespace(**dict.fromkeys(ConsoleOperations.__dataclass_fields__))
_SIGN_IN = SignIn(*(cast("Any", None) for _ in range(5)))
PAGES = (*all_pages(cast("Any", None), cast("ConsoleOperations", _NOTHING)), *_SIGN_IN.pages())
OPEN = {("GET", "/static/{name}"), *((method, path) for method, path, _ in _SIGN_IN.open_handlers())}
"""What needs no session."""
LEADING_ON = {("GET", "/"), ("GET", "/{elsewhere}")}
"""What leads to the first page, and the page that says that there is none."""
MAY_SIGN_IN = ("read", "read+write", "write+admin", "admin", "read+write+admin")
FORMS: dict[str, dict[str, str]] = {
    "/webhooks/new": {"name": "One", "url": URL, "events": "user.created"},
    "/webhooks/{id}/edit": {"name": "One", "url": URL, "max_attempts": "6", "timeout_seconds": "10"},
    "/webhooks/{id}/events": {"events": "user.deleted"},
    "/webhooks/{id}/status": {"status": "inactive"},
    "/webhooks/{id}/replay": {"span": "86400"},
    "/dead-letters/replay": {"reason": "gone"},
    "/dead-letters/handled": {"reason": "gone"},
}
"""What each form sends, where it needs anything."""
CONFIRMED = {("GET", "/dead-letters/replay"): "?reason=gone", ("GET", "/dead-letters/handled"): "?reason=gone"}

REQUEST_ID = re.compile(r"req_\w+")


def named(page: Page) -> str:
    return f"{page.method} {page.path or '/'}"


each_page = pytest.mark.parametrize("page", PAGES, ids=named)


@pytest.fixture
async def stack():
    async with console_stack() as made:
        yield made


@pytest.fixture
async def tenants(stack: ConsoleStack) -> tuple[Tenant, Tenant]:
    return await settle_both(stack)


async def ask(browser: Browser, page: Page, path: str, token: str) -> Seen:
    if page.method == "GET":
        return await browser.get(path + CONFIRMED.get((page.method, page.path), ""), allow_redirects=False)
    return await browser.post(path, FORMS.get(page.path, {}), token=token, allow_redirects=False)


async def signed_in(stack: ConsoleStack, kind: str) -> tuple[Browser, str]:
    """Sign a new browser in; gives it and the token of its forms."""
    browser = Browser(TestClient(stack.server, cookie_jar=CookieJar(unsafe=True)), stack.api.keys)
    return browser, (await browser.sign_in(kind)).token


async def test_the_table_has_every_route_of_the_router(stack):
    """Whatever the application serves under /console is in the list that this table is made of, or needs no session."""
    listed = {(page.method, page.path) for page in PAGES}
    served = set()
    for route in stack.server.app.router.routes():
        path = route.resource.canonical
        if path.startswith("/console") and route.method != "HEAD":
            served.add((route.method, path.removeprefix("/console")))
    assert served == listed | OPEN | LEADING_ON


def test_what_changes_something_is_for_whom_may_write():
    """Only signing out is for those too who may but read."""
    assert {named(page) for page in PAGES if page.method != "GET" and page.scope == "read"} == {"POST /sign-out"}


@each_page
async def test_without_a_session_one_is_sent_to_sign_in(stack, tenants, page):
    """Whether what the path names is there or not; and nothing is changed."""
    before, told = snapshot(stack), set()
    for path in {filled(page.path, tenants[0]), *(never for _, never in trespasses(page.path, *tenants))}:
        seen = await ask(stack.browser, page, path, "")
        if seen.status == 303:
            assert seen.headers["Location"].partition("?")[0] == "/console/sign-in"
        else:
            # What was typed is given back, to be sent again by whoever signs in.
            assert (seen.status, page.path in FORMS) == (401, True)
        told.add(REQUEST_ID.sub("", without_ids(seen.words, *tenants)))
    assert len(told) == 1
    assert differing(before, snapshot(stack)) == []


@each_page
async def test_each_page_is_for_whom_it_says(stack, tenants, page):
    """A key without the page's scope gets 403 and changes nothing, one with it gets the page or its form done."""
    before, path = snapshot(stack), filled(page.path, tenants[0])
    for kind in MAY_SIGN_IN:
        browser, token = await signed_in(stack, kind)
        allowed = page.scope in kind.split("+") or "admin" in kind
        seen = await ask(browser, page, path, token)
        if allowed:
            # A form that lacks a field is drawn again: its sender got through, and its fields are told elsewhere.
            assert seen.status in ((200,) if page.method == "GET" else (200, 303, 409, 422)), seen.words
            return
        assert (seen.status, f"scope {page.scope}" in seen.words, differing(before, snapshot(stack))) == (403, True, [])


@pytest.mark.parametrize("page", [page for page in PAGES if page.method != "GET"], ids=named)
async def test_a_form_of_another_session_changes_nothing(stack, tenants, page):
    """Without the token of the session that sends it, no form does what it says."""
    browser, _ = await signed_in(stack, "admin")
    _, others = await signed_in(stack, "other")
    before, path = snapshot(stack), filled(page.path, tenants[0])
    for token in ("", "made up", others):
        assert (await ask(browser, page, path, token)).status == 403
    assert differing(before, snapshot(stack)) == []


@each_page
async def test_another_workspace_sees_what_it_would_of_nothing(stack, tenants, page):
    """Its admin gets 404 for things of this one, as for what never was, and nothing is changed."""
    own, other = tenants[1], tenants[0]
    browser, token = await signed_in(stack, "other")
    for path, never in trespasses(page.path, own, other):
        before = snapshot(stack)
        seen, empty = [await ask(browser, page, each, token) for each in (path, never)]
        assert (seen.status, empty.status) == (404, 404), path
        told, told_of_none = [REQUEST_ID.sub("", without_ids(each.words, own, other)) for each in (seen, empty)]
        assert told == told_of_none
        assert differing(before, snapshot(stack)) == []


@each_page
async def test_no_page_shows_what_is_another_workspace_s(stack, tenants, page):
    """What the other's admin sees, of its own, has no id and no name of this one in it."""
    marks = {*tenants[0].marks(), f"hook-of-{OWN}"}
    browser, token = await signed_in(stack, "other")
    seen = await ask(browser, page, filled(page.path, tenants[1]), token)
    assert seen.status in (200, 303, 409, 422), seen.words
    assert shows_any(seen.text, marks) == []


@pytest.mark.parametrize("path", ["/webhooks", "/dead-letters", "/replays", "/webhooks/{id}/deliveries"])
async def test_lists_show_their_owner_what_the_others_do_not_see(stack, tenants, path):
    """The marks that the test above looks for are there for whom they belong to."""
    browser, _ = await signed_in(stack, "admin")
    seen = await browser.get(filled(path, tenants[0]))
    assert shows_any(seen.text, tenants[0].marks())


async def test_forms_with_another_workspace_s_things_leave_them_alone(stack, tenants):
    """Dead letters that are chosen by another workspace's webhook or delivery are none."""
    theirs = tenants[0].things
    browser, token = await signed_in(stack, "other")
    for chosen in (
        {"subscription": theirs["webhooks", "id"]},
        {"delivery": theirs["webhooks", "delivery_id"]},
        {"delivery_ids": theirs["webhooks", "delivery_id"]},
    ):
        for path in ("/dead-letters/replay", "/dead-letters/handled"):
            await browser.post(path, {**chosen, "reason": "gone"}, token=token)
            (row,) = [row for row in stack.reader.deliveries if row.workspace_id == OWN]
            assert row.handled_at_ms is None
    replays = [job for job in stack.replays.jobs.values() if job.workspace_id == OWN]
    assert len(replays) == 1


async def test_a_key_that_may_not_read_opens_no_session(stack, tenants):
    """The console is for who may read."""
    await stack.browser.get("/sign-in")
    seen = await stack.browser.post("/sign-in", {"api_key": stack.api.keys["write"]})
    assert (seen.status, "scope read" in seen.words) == (403, True)
