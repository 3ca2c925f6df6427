"""Webhooks in the console: list, form, page."""

import re
from dataclasses import replace
from importlib.resources import files

import pytest

from dispatcher.console.snippets import HEADERS, LANGUAGES

FIELDS = {
    "name": "Billing",
    "url": "https://hooks.example.com/in",
    "method": "POST",
    "content_type": "application/json",
    "max_attempts": "4",
    "status": "active",
    "description": "Keeps it up to date.",
    "api_key_header": "X-API-Key",
    "payload_format": "event",
    "timeout_seconds": "10",
    "rate_limit": "",
    "headers": "",
    "notification_type": "REST",
    "other_events": "",
}
HOSTILE = "\"'><script>alert(1)</script>{{7*7}}&amp;"


async def shown_by_api(console, webhook_id):
    return await (await console.api.call("GET", f"/webhooks/{webhook_id}")).json()


async def create(browser, **changes):
    await browser.get("/webhooks/new")
    events = changes.pop("events", ["user.created"])
    pairs = [*{**FIELDS, **changes}.items(), *(("events", each) for each in events)]
    return await browser.post("/webhooks/new", pairs)


async def test_an_empty_list_says_what_to_do(browser):
    """Without webhooks there is a word on what they are and the button that makes one."""
    seen = await browser.get("/webhooks")
    assert "No webhooks yet" in seen.words
    assert 'href="/console/webhooks/new"' in seen.text
    assert "No webhook matches" in (await browser.get("/webhooks?q=x")).words


def test_the_form_has_the_fields_in_their_order(fields_of_form):
    """Details, Security, Events, Notification type, each with its fields, as they are asked for."""
    wanted = [
        "Name", "Callback URL", "Method", "Content-Type", "Max attempts", "Status", "Description",
        "Secret", "API key",
    ]  # fmt: skip
    assert [label for label in fields_of_form["labels"] if label in wanted] == wanted
    assert fields_of_form["legends"] == ["Details", "Security", "Events", "Notification type"]
    assert fields_of_form["required"] == ["name", "url"]
    assert fields_of_form["buttons"] == ["Create", "Cancel"]


@pytest.fixture
async def fields_of_form(browser):
    text = (await browser.get("/webhooks/new")).text
    main = text[text.index("<main") :]
    return {
        "labels": [label.strip() for label in re.findall(r'<label for="[^"]+">([^<]+)', main)],
        "legends": re.findall(r"<legend>([^<]+)", main),
        "required": re.findall(r'<input id="([^"]+)"[^>]* required', main),
        "buttons": re.findall(r">(Create|Cancel)<", main),
    }


async def test_a_new_webhook_shows_its_secret_once(browser, console):
    """The form leads to the webhook's page with the secret; a reload, and the list, don't have it."""
    seen = await create(browser)
    secret = re.search(r'<pre id="secret"[^>]*>(whsec_[^<]+)</pre>', seen.text)
    assert secret, seen.words
    webhook_id = seen.path.rpartition("/")[2]
    row = await shown_by_api(console, webhook_id)
    assert (row["name"], row["max_attempts"], row["events"]) == ("Billing", 4, ["user.created"])
    assert row["description"] == "Keeps it up to date."
    for path in (f"/webhooks/{webhook_id}", "/webhooks", f"/webhooks/{webhook_id}/edit"):
        assert secret[1] not in (await browser.get(path)).text


async def test_a_secret_waits_for_its_page(browser, console):
    """What is opened between the form and the webhook's page doesn't use the secret up."""
    await browser.get("/webhooks/new")
    pairs = [*FIELDS.items(), ("events", "*"), ("token", browser.page.token)]
    response = await browser.client.post("/console/webhooks/new", data=pairs, allow_redirects=False)
    assert 'id="secret"' not in (await browser.get("/webhooks")).text
    assert 'id="secret"' in (await browser.get(response.headers["Location"].removeprefix("/console"))).text


async def shown_once(browser):
    """Create a webhook and don't follow; gives the path of the page that its secret waits for."""
    await browser.get("/webhooks/new")
    pairs = [*FIELDS.items(), ("events", "*"), ("token", browser.page.token)]
    response = await browser.client.post("/console/webhooks/new", data=pairs, allow_redirects=False)
    return response.headers["Location"].removeprefix("/console")


async def test_a_secret_outlives_a_page_that_failed(browser, console):
    """Neither an outage's page nor one of too many requests uses the secret up."""
    own = await shown_once(browser)
    console.api.outage.down = True
    assert (await browser.get(own)).status == 503
    console.api.outage.down = False
    assert 'id="secret"' in (await browser.get(own)).text
    assert 'id="secret"' not in (await browser.get(own)).text


@pytest.mark.parametrize("page", ["edit", "test", "rotate", "deliveries", "delete", "deactivate", "replay"])
async def test_no_other_page_of_the_webhook_uses_its_secret_up(browser, page):
    """It waits for the one page that shows it."""
    own = await shown_once(browser)
    assert 'id="secret"' not in re.sub(r"<input[^>]*>", "", (await browser.get(f"{own}/{page}")).text)
    assert 'id="secret"' in (await browser.get(own)).text


async def test_what_other_forms_leave_takes_no_secrets_place(browser, console):
    """Another tab's flash, and another webhook's secret, come beside it."""
    own, other = await shown_once(browser), await shown_once(browser)
    await browser.get(other)
    fields = {"status": "inactive", "token": browser.page.token}
    third = await console.api.create(name="Third")
    await browser.client.post(f"/console/webhooks/{third['id']}/status", data=fields, allow_redirects=False)
    seen = await browser.get(own)
    assert ('id="secret"' in seen.text, "nothing is sent any more" in seen.words) == (True, True)


async def test_a_look_of_the_script_or_of_a_head_uses_no_secret_up(browser):
    """Only a page that somebody sees does."""
    own = await shown_once(browser)
    assert 'id="secret"' not in (await browser.get(own, headers={"X-Live": "1"})).text
    await browser.client.head(f"/console{own}")
    assert 'id="secret"' in (await browser.get(own)).text


async def test_the_code_that_verifies_stands_below_the_secret(browser):
    """While the secret shows the snippets come next; later they are the page's last part. There is one of each."""
    seen = await create(browser)
    assert seen.text.index('id="secret"') < seen.text.index('id="verify"') < seen.text.index('id="details"')
    assert seen.text.count('id="verify"') == 1
    seen = await browser.get(seen.path.removeprefix("/console"))
    assert seen.text.index('id="latest"') < seen.text.index('id="verify"')


async def test_secrets_that_were_typed_are_asked_for_again(browser, console):
    """With another field wrong, the empty fields say so, in the summary too; those left empty say nothing."""
    seen = await create(browser, url="x", secret="a secret of my own", api_key="key-1")
    for name in ("secret", "api_key"):
        assert re.search(rf'id="{name}-problem">type it again', seen.text), name
    assert "3 fields to look at again" in seen.words
    seen = await create(browser, url="x")
    assert "type it again" not in seen.words
    created = await console.api.create(name="Old", api_key="key-1")
    path = f"/webhooks/{created['id']}/edit"
    await browser.get(path)
    seen = await browser.post(path, {**FIELDS, "url": "x", "revision": "1", "remove_api_key": "yes"})
    assert 'name="remove_api_key" value="yes" checked' in seen.text
    await console.api.call("PATCH", f"/webhooks/{created['id']}", {"name": "Theirs"})
    seen = await browser.post(path, {**FIELDS, "revision": "1", "api_key": "key-2"})
    assert (seen.status, 'id="api_key-problem"' in seen.text) == (409, True)


async def test_a_pattern_that_matches_nothing_is_named(browser):
    """The warning has the event type that was typed."""
    seen = await create(browser, other_events="user.craeted")
    assert "Look at the event type user.craeted: matches no event type of the catalogue" in seen.words


async def test_wrong_fields_are_told_beside_them_and_keep_what_was_typed(browser, console):
    """Each wrong field has its problem, all at once; the rest stands as typed, but for what is secret."""
    seen = await create(
        browser,
        name="",
        url="http://hooks.example.com/",
        max_attempts="99",
        description="Typed <b>by hand</b>",
        secret="short",
        api_key="my key",
        rate_limit="fast",
        headers="X-Fine: yes\nCookie: a",
        other_events="user created!",
        events=["user.deleted"],
    )
    assert seen.status == 422
    for name in ("name", "url", "max_attempts", "secret", "api_key", "rate_limit", "headers", "other_events"):
        assert f'id="{name}-problem"' in seen.text, name
        assert re.search(rf'id="{name}"[^>]*aria-invalid="true"[^>]*aria-describedby="{name}-problem', seen.text), name
    assert (seen.value("url"), seen.value("max_attempts")) == ("http://hooks.example.com/", "99")
    assert seen.value("description") == "Typed <b>by hand</b>"
    assert seen.value("headers") == "X-Fine: yes\nCookie: a"
    assert 'value="user.deleted" checked' in seen.text
    assert "my key" not in seen.text
    assert (await (await console.api.call("GET", "/webhooks")).json())["data"] == []


async def test_every_field_reaches_the_webhook(browser, console):
    """What the form has beyond the first fields is stored too, and stands in the form again."""
    seen = await create(
        browser,
        method="PUT",
        status="inactive",
        secret="a secret of my own",
        api_key="key-1",
        api_key_header="Authorization",
        payload_format="context",
        timeout_seconds="5",
        rate_limit="2,5",
        headers="X-Team: billing\nX-Env: test",
        other_events="team.*, order.paid",
    )
    webhook_id = seen.path.rpartition("/")[2]
    assert ">a secret of my own</pre>" in seen.text
    row = await shown_by_api(console, webhook_id)
    assert (row["method"], row["status"], row["payload_format"]) == ("PUT", "inactive", "context")
    assert (row["api_key_set"], row["api_key_header"]) == (True, "Authorization")
    assert (row["timeout_seconds"], row["rate_limit"]) == (5, 2.5)
    assert row["headers"] == {"X-Team": "billing", "X-Env": "test"}
    assert row["events"] == ["user.created", "team.*", "order.paid"]
    form = await browser.get(f"/webhooks/{webhook_id}/edit")
    assert (form.value("rate_limit"), form.value("other_events")) == ("2.5", "team.* order.paid")
    assert form.value("headers") == "X-Team: billing\nX-Env: test"
    assert form.value("api_key") == ""


async def test_an_edit_changes_what_differs_and_nothing_else(browser, console):
    """Fields as they were are not sent; headers and events that were taken away are gone; the API key stays."""
    created = await console.api.create(name="Old", headers={"X-A": "1", "X-B": "2"}, api_key="key-1", events=["*"])
    path = f"/webhooks/{created['id']}/edit"
    form = await browser.get(path)
    revision = re.search(r'name="revision" value="(\d+)"', form.text)[1]
    fields = {
        **FIELDS,
        "name": "New",
        "url": created["url"],
        "max_attempts": "6",
        "description": "",
        "headers": "X-B: 3",
    }
    seen = await browser.post(path, [*fields.items(), ("revision", revision), ("events", "user.created")])
    assert seen.path == f"/console/webhooks/{created['id']}"
    row = await shown_by_api(console, created["id"])
    assert (row["name"], row["headers"], row["events"], row["api_key_set"]) == (
        "New",
        {"X-B": "3"},
        ["user.created"],
        True,
    )
    noted = await (await console.api.call("GET", "/audit-log?action=webhook.update", key="admin")).json()
    assert {change["field"] for change in noted["data"][0]["changes"]} == {"name", "headers", "events"}


async def test_an_api_key_can_be_taken_away(browser, console):
    """Ticking the box removes it."""
    created = await console.api.create(name="Old", api_key="key-1", description=FIELDS["description"])
    path = f"/webhooks/{created['id']}/edit"
    await browser.get(path)
    fields = {**FIELDS, "revision": "1", "remove_api_key": "yes"}
    await browser.post(path, [*fields.items(), ("events", "user.created")])
    assert (await shown_by_api(console, created["id"]))["api_key_set"] is False


async def test_a_url_elsewhere_asks_for_the_key_again(browser, console):
    """A form that leads a webhook with a key to another origin says beside the key what to do, and changes nothing."""
    created = await create(browser, api_key="sk_live_1")
    webhook_id = re.search(r"wh_[a-z2-7]{26}", created.text)[0]
    edit = f"/webhooks/{webhook_id}/edit"
    seen = await browser.get(edit)
    revision = re.search(r'name="revision" value="(\d+)"', seen.text)[1]
    typed = {**FIELDS, "events": "user.created", "url": "https://other.example.com/", "revision": revision}
    refused = await browser.post(edit, typed)
    assert refused.status == 422
    assert re.search(r'id="api_key"[^>]*aria-invalid="true"', refused.text)
    assert "give the key again with the URL" in refused.words
    assert (await shown_by_api(console, webhook_id))["url"] == FIELDS["url"]
    await browser.post(edit, {**typed, "api_key": "sk_live_2"})
    assert (await shown_by_api(console, webhook_id))["url"] == "https://other.example.com/"


async def test_somebody_elses_change_is_shown_beside_ones_own(browser, console):
    """Nothing is overwritten: the form keeps what was typed, tells both, and the next save counts."""
    created = await console.api.create(name="Old")
    path = f"/webhooks/{created['id']}/edit"
    await browser.get(path)
    await console.api.call("PATCH", f"/webhooks/{created['id']}", {"name": "Theirs", "max_attempts": 3})
    pairs = [*{**FIELDS, "name": "Mine", "revision": "1"}.items(), ("events", "user.created")]
    seen = await browser.post(path, pairs)
    assert seen.status == 409
    assert "Somebody else changed this webhook" in seen.words
    assert re.search(r"name</th><td>Theirs</td><td>Mine</td>", seen.text)
    assert seen.value("name") == "Mine"
    assert (await shown_by_api(console, created["id"]))["name"] == "Theirs"
    wrong = [*{**FIELDS, "name": "", "revision": "1"}.items(), ("events", "user.created")]
    assert (await browser.post(path, wrong)).status == 409, "what others did comes before what is wrong"
    seen = await browser.post(path, pairs)
    revision = re.search(r'name="revision" value="(\d+)"', seen.text)[1]
    pairs = [*{**FIELDS, "name": "Mine", "revision": revision}.items(), ("events", "user.created")]
    assert (await browser.post(path, pairs)).status == 200
    assert (await shown_by_api(console, created["id"]))["name"] == "Mine"


async def test_a_change_in_the_same_moment_is_told_too(browser, console):
    """The same page where the other change comes between reading and storing."""
    created = await console.api.create(name="Old")
    store, path = console.api.webhook_store, f"/webhooks/{created['id']}/edit"
    await browser.get(path)
    original = store.replace

    async def overtaken(webhook, *, expected_revision):
        store.replace = original
        await console.api.call("PATCH", f"/webhooks/{created['id']}", {"name": "Theirs"})
        return False

    store.replace = overtaken
    pairs = [*{**FIELDS, "name": "Mine", "revision": "1"}.items(), ("events", "user.created")]
    seen = await browser.post(path, pairs)
    assert (seen.status, "Theirs" in seen.words) == (409, True)


async def test_a_disabled_webhook_says_why_and_stays_disabled_while_it_is_edited(browser, console):
    """Its page has the reason; an edit that leaves the status alone doesn't activate it, choosing active does."""
    created = await console.api.create(name="Old", description=FIELDS["description"], max_attempts=4)
    store = console.api.webhook_store
    webhook = store.webhooks[created["id"]]
    disabled = replace(webhook.subscription, status="disabled")
    store.webhooks[created["id"]] = replace(
        webhook, subscription=disabled, disabled_reason="its endpoint answered 410", disabled_at_ms=1_768_473_000_000
    )
    assert "its endpoint answered 410" in (await browser.get(f"/webhooks/{created['id']}")).words
    path = f"/webhooks/{created['id']}/edit"
    await browser.get(path)
    pairs = [*{**FIELDS, "name": "New", "status": "disabled", "revision": "1"}.items(), ("events", "user.created")]
    assert (await browser.post(path, pairs)).status == 200
    row = await shown_by_api(console, created["id"])
    assert (row["name"], row["status"]) == ("New", "disabled")
    await browser.get(path)
    pairs = [*{**FIELDS, "name": "New", "revision": "2"}.items(), ("events", "user.created")]
    await browser.post(path, pairs)
    assert (await shown_by_api(console, created["id"]))["status"] == "active"


async def test_cloudevents_needs_no_other_content_type(browser, console):
    """Choosing the format is enough; with a form's content type the field is told."""
    seen = await create(browser, payload_format="cloudevents")
    row = await shown_by_api(console, seen.path.rpartition("/")[2])
    assert row["content_type"] == "application/cloudevents+json"
    seen = await create(browser, payload_format="cloudevents", content_type="application/x-www-form-urlencoded")
    assert (seen.status, 'id="content_type-problem"' in seen.text) == (422, True)


async def test_all_events_make_the_others_needless(browser, console):
    """With all events ticked, nothing else is stored."""
    seen = await create(browser, events=["user.created", "*"], other_events="team.*")
    assert (await shown_by_api(console, seen.path.rpartition("/")[2]))["events"] == ["*"]


async def test_a_webhook_without_events_says_that_it_receives_nothing(browser, console):
    """Its page says so, and adding events ends it; a type that is there already isn't offered."""
    seen = await create(browser, events=[])
    assert "receives nothing" in seen.words
    own = seen.path.removeprefix("/console")
    seen = await browser.post(f"{own}/events", [("events", "user.created"), ("events", "post.deleted")])
    assert "user.created, post.deleted" in seen.words
    assert 'type="checkbox" name="events" value="user.created"' not in seen.text
    assert 'value="user.deleted"' in seen.text
    assert (await browser.post(f"{own}/events", [])).words.count("No event type was ticked") == 1
    await browser.post(f"{own}/events", [("events", "*")])
    assert (await shown_by_api(console, own.rpartition("/")[2]))["events"] == ["*"]


async def test_adding_events_overwrites_nobody(browser, console):
    """A change in the same moment is told, and nothing is added."""
    created = await console.api.create(name="Mine")
    own, store = f"/webhooks/{created['id']}", console.api.webhook_store
    await browser.get(own)
    original = store.replace

    async def overtaken(webhook, *, expected_revision):
        store.replace = original
        await console.api.call("PATCH", own, {"events": []})
        return False

    store.replace = overtaken
    seen = await browser.post(f"{own}/events", [("events", "post.deleted")])
    assert "somebody else changed the webhook just then" in seen.words
    assert (await shown_by_api(console, created["id"]))["events"] == []


async def test_the_list_is_paged_and_filtered(browser, console):
    """Fifty rows a page; the pager keeps the filter; name, URL, id and status filter."""
    for number in range(55):
        await console.api.create(name=f"Hook {number}", url=f"https://hooks.example.com/{'a' if number % 2 else 'b'}")
        console.api.clock.ms += 1
    first = await browser.get("/webhooks?q=hook")
    assert first.text.count("<tr>") == 51
    following = re.search(r'href="(/console/webhooks\?[^"]+)" rel="next"', first.text)[1].replace("&amp;", "&")
    second = await browser.get(following.removeprefix("/console"))
    assert second.text.count("<tr>") == 6
    assert 'href="/console/webhooks?q=hook"' in second.text
    assert (await browser.get("/webhooks?q=EXAMPLE.com/a")).text.count("<tr>") == 28
    assert (await browser.get("/webhooks?status=inactive")).words.count("No webhook matches") == 1
    seen = await browser.get("/webhooks?status=bogus")
    assert (seen.status, 'id="status-problem"' in seen.text, seen.text.count("<tr>")) == (422, True, 51)
    assert (await browser.get("/webhooks?q=%00")).status == 200
    assert (await browser.get("/webhooks?cursor=bogus")).status == 422


async def test_hostile_words_are_shown_as_words(browser, console):
    """Script in each field comes back as text, on every page that shows it."""
    seen = await create(
        browser, name=HOSTILE, description=HOSTILE, headers=f"X-A: {HOSTILE}", url="https://hooks.example.com/?<script>"
    )
    own = seen.path.removeprefix("/console")
    assert seen.status in {200, 422}
    if seen.status == 422:
        created = await console.api.create(name=HOSTILE, description=HOSTILE, headers={"X-A": HOSTILE})
        own = f"/webhooks/{created['id']}"
    paths = ("/webhooks", own, f"{own}/edit", f"{own}/delete", f"{own}/test", f"{own}/rotate", f"{own}/deliveries")
    for path in (*paths, f"/webhooks?q={HOSTILE}", f"/event-types?q={HOSTILE}", f"{own}/deliveries?type={HOSTILE}"):
        seen = await browser.get(path)
        assert "<script>alert" not in seen.text, path
        assert "49" not in seen.words or "{{7*7}}" in seen.words
    assert HOSTILE.replace("&amp;", "&") in (await browser.get(own)).words.replace("&amp;", "&")


async def test_snippets_are_there_for_each_header_and_language(browser):
    """Sixteen snippets, one for each pair, each read from the environment."""
    seen = await create(browser)
    assert len(re.findall(r'class="snippet s-\d-\d"', seen.text)) == 16
    assert seen.text.count("WEBHOOK_SECRET") >= 16


def test_each_snippet_can_be_chosen():
    """The style sheet has a rule for each pair of header and language, and for no other."""
    style = (files("dispatcher.console") / "static" / "console.css").read_text()
    rules = re.findall(r"#sh-(\d):checked\):has\(#sl-(\d):checked\) \.s-(\d)-(\d)", style)
    pairs = [(str(header), str(language)) for header in range(len(HEADERS)) for language in range(len(LANGUAGES))]
    assert [(rule[:2], rule[2:]) for rule in rules] == [(pair, pair) for pair in pairs]


async def test_a_webhook_too_many_is_said_on_its_form(console, browser, monkeypatch):
    """Where the workspace has as many as it may, the form stands as it was typed, and says what to do."""

    async def full(*_, **__):
        return False

    monkeypatch.setattr(console.store, "insert", full)
    seen = await create(browser, name="One more")
    assert seen.status == 409
    assert "Workspace : this workspace has as many webhooks as it may" in seen.words
    assert "ask the operator to raise DISPATCHER_MAX_WEBHOOKS_PER_WORKSPACE" in seen.words
    assert seen.value("name") == "One more"
