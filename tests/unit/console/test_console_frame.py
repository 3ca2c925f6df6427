"""What holds for every page: headers, scopes, errors, flashes."""

import re

import pytest

from dispatcher.console.forms import MAX_FORM_BYTES
from dispatcher.console.frame import sentence
from tests.fakes.api_stack import START_MS
from tests.fakes.console_stack import ConsoleStack
from tests.unit.api.test_api_deliveries import delivery

PAGES = (
    "",
    "/webhooks",
    "/webhooks/new",
    "/webhooks/{id}",
    "/webhooks/{id}/edit",
    "/webhooks/{id}/test",
    "/webhooks/{id}/rotate",
    "/webhooks/{id}/delete",
    "/webhooks/{id}/deactivate",
    "/webhooks/{id}/deliveries",
    "/webhooks/{id}/deliveries/del_001",
    "/webhooks/{id}/replay",
    "/dead-letters",
    "/dead-letters/del_002",
    "/dead-letters/replay?reason=gone",
    "/dead-letters/handled?reason=gone",
    "/replays",
    "/event-types",
    "/event-types/user.created",
)
TO_WRITE = tuple(
    page for page in PAGES if page.endswith(("new", "edit", "rotate", "delete", "deactivate", "reason=gone"))
)
TO_READ = tuple(page for page in PAGES if page not in TO_WRITE)


@pytest.fixture
async def webhook_id(console: ConsoleStack) -> str:
    created = await console.api.create(name="Mine")
    failed = delivery(2, created["id"], status="failed", reason="gone", created_at_ms=START_MS - 1000)
    console.reader.deliveries = [delivery(1, created["id"]), failed]
    return created["id"]


@pytest.mark.parametrize("page", PAGES)
async def test_each_page_has_the_headers_that_guard_it(browser, webhook_id, page):
    """Nothing inline may run, nobody may frame or keep it, and no template breaks the policy itself."""
    seen = await browser.get(page.format(id=webhook_id))
    assert seen.status == 200, seen.words
    policy = seen.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert seen.headers["Cache-Control"] == "no-store"
    assert seen.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=|javascript:", seen.text)
    assert len(re.findall(r"<h1[ >]", seen.text)) == 1
    ids = re.findall(r'\sid="([^"]+)"', seen.text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("page", TO_READ)
async def test_a_key_that_may_only_read_sees_no_button_that_would_fail(console, webhook_id, page):
    """The only form that such a key may send is the one that signs out."""
    await console.browser.sign_in("read")
    seen = await console.browser.get(page.format(id=webhook_id))
    assert seen.status == 200
    forms = re.findall(r'<form method="post"(?: action="([^"]*)")?', seen.text)
    assert forms == ["/console/sign-out"]
    assert not re.search(
        r'href="[^"]*/(?:new|edit|rotate|delete|deactivate|cancel)"|dead-letters/(?:replay|handled)', seen.text
    )


async def test_a_key_that_may_only_read_changes_nothing(console, webhook_id):
    """Every change, and every page that only leads to one, is 403 for it."""
    await console.browser.sign_in("read")
    own = f"/webhooks/{webhook_id}"
    for page in PAGES:
        if page in TO_WRITE:
            assert (await console.browser.get(page.format(id=webhook_id))).status == 403
    assert (await console.browser.get("/replays/rpl_1/cancel")).status == 403
    for path in (
        "/webhooks/new",
        f"{own}/edit",
        f"{own}/events",
        f"{own}/test",
        f"{own}/rotate",
        f"{own}/status",
        f"{own}/delete",
        f"{own}/replay",
        f"{own}/deliveries/del_001/redeliver",
        "/replays/rpl_1/cancel",
        "/dead-letters/replay",
        "/dead-letters/handled",
    ):
        seen = await console.browser.post(path)
        assert (seen.status, "scope write" in seen.words) == (403, True), path


@pytest.mark.parametrize("page", [page for page in PAGES if "{id}" in page])
async def test_another_workspace_sees_nothing(console, webhook_id, page):
    """With another workspace's key each page of a webhook is not there."""
    await console.browser.sign_in("other")
    assert (await console.browser.get(page.format(id=webhook_id))).status == 404
    assert "Mine" not in (await console.browser.get("/webhooks")).text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/webhooks/wh_none", "/replays/rpl_none", "/event-types/no.such", "/static/x.css"]
)
async def test_what_is_not_there_has_a_page_that_leads_on(browser, path):
    """404 as a page of the console, with its menu."""
    seen = await browser.get(path)
    assert seen.status == 404
    assert "text/html" in seen.headers["Content-Type"]


async def test_a_database_that_is_away_is_said_so(browser, console):
    """503 with what to do, signed in or not; nothing of the error itself."""
    console.api.outage.down = True
    seen = await browser.get("/webhooks")
    assert (seen.status, "can't reach its database" in seen.words) == (503, True)
    console.api.clock.ms += 2000
    seen = await browser.get("/webhooks")
    assert (seen.status, "can't reach its database" in seen.words) == (503, True)


async def test_a_fault_shows_its_request_id_and_nothing_else(browser, console, monkeypatch):
    """500 with the id that the log has, and no word of what went wrong inside."""

    async def broken(*_args, **_options):
        raise RuntimeError("inner secret")

    monkeypatch.setattr(console.api.webhook_store, "page", broken)
    seen = await browser.get("/webhooks")
    assert seen.status == 500
    assert seen.headers["X-Request-Id"] in seen.words
    assert "inner secret" not in seen.text


async def test_forms_are_bounded_and_forms(browser):
    """A form that is too large, has too many fields, or is something else is refused with a page."""
    await browser.get("/webhooks/new")
    assert (await browser.post("/webhooks/new", {"name": "a" * MAX_FORM_BYTES})).status == 413
    assert (await browser.post("/webhooks/new", [("events", "a")] * 600)).status == 413
    response = await browser.client.post("/console/webhooks/new", json={"name": "a"})
    assert response.status == 415


async def test_wrong_methods_end_in_a_page(browser):
    """405 with the menu, not with JSON."""
    response = await browser.client.put("/console/webhooks")
    assert (response.status, response.content_type) == (405, "text/html")


async def test_a_flash_shows_once_and_not_to_the_script(browser, console, webhook_id):
    """The next page says it; a page that the script fetches again neither shows nor uses it up."""
    await browser.get(f"/webhooks/{webhook_id}")
    token = browser.page.token
    fields = {"status": "inactive", "token": token}
    await browser.client.post(f"/console/webhooks/{webhook_id}/status", data=fields, allow_redirects=False)
    live = await browser.get(f"/webhooks/{webhook_id}", headers={"X-Live": "1"})
    assert "nothing is sent any more" not in live.words
    assert "nothing is sent any more" in (await browser.get("/webhooks")).words
    assert "nothing is sent any more" not in (await browser.get("/webhooks")).words


async def test_files_are_served_for_ever_under_their_content(console):
    """Style sheet and script have a hash in their names, no inline twin, and may be kept for a year."""
    page = await console.browser.get("/sign-in")
    files = re.findall(r'"(/console/static/[^"]+)"', page.text)
    assert {file.rpartition(".")[2] for file in files} == {"css", "js", "svg"}
    for file in files:
        response = await console.browser.client.get(file)
        assert response.status == 200
        assert "immutable" in response.headers["Cache-Control"]
        assert re.search(r"\.[0-9a-f]{12}\.", file)


def test_errors_become_sentences():
    """An operation's words begin with a capital and end with one full stop."""
    assert sentence("the webhook is gone") == "The webhook is gone."
    assert sentence("Done.") == "Done."
    assert sentence("") == ""
