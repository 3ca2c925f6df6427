"""The calls about webhooks."""

import dataclasses
import json

import pytest
import trustme

from dispatcher.core.sealing import SealPurpose, binding
from tests.fakes.api_stack import START_MS, URL, problems


async def test_create_answers_with_everything_and_the_secret(api):
    """A webhook made from the least there is shows every default, its location and its secret."""
    response = await api.call("POST", "/webhooks", {"url": URL, "events": ["user.created"]})
    body = await response.json()
    assert response.status == 201
    assert response.content_type == "application/json"
    assert response.headers["Location"] == f"/v1/webhooks/{body['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    assert body.pop("id").startswith("wh_")
    assert body.pop("secret").startswith("whsec_")
    assert body == {
        "name": None,
        "description": None,
        "url": URL,
        "method": "POST",
        "content_type": "application/json",
        "events": ["user.created"],
        "status": "active",
        "disabled_reason": None,
        "disabled_at": None,
        "notification_type": "REST",
        "payload_format": "event",
        "max_attempts": 6,
        "headers": {},
        "api_key_set": False,
        "api_key_header": "X-API-Key",
        "client_certificate": None,
        "client_key_set": False,
        "timeout_seconds": 10,
        "rate_limit": None,
        "created_at": "2026-01-15T10:30:00Z",
        "updated_at": "2026-01-15T10:30:00Z",
        "warnings": [],
    }


async def test_answers_are_compact_utf8(api):
    """An answer's bytes are compact JSON in UTF-8, nothing escaped that need not be."""
    created = await api.create(name="Grüße ✓")
    response = await api.call("GET", f"/webhooks/{created['id']}")
    text = (await response.read()).decode("utf-8")
    assert json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) == text


async def test_secrets_show_in_the_answer_to_create_only(api):
    """Neither the secret nor the API key is in any later answer."""
    created = await api.create(secret="correct horse battery", api_key="sk_live_abcdef")
    path = f"/webhooks/{created['id']}"
    assert created["secret"] == "correct horse battery"
    assert "sk_live_abcdef" not in json.dumps(created)
    for method, at, body in (("GET", path, None), ("GET", "/webhooks", None), ("PATCH", path, {"name": "n"})):
        text = await (await api.call(method, at, body)).text()
        assert created["id"] in text
        assert "correct horse" not in text
        assert "sk_live" not in text
        assert '"secret"' not in text


async def test_secrets_are_sealed_before_they_are_stored(api):
    """The store sees only sealed bytes, which open for this webhook and this purpose."""
    created = await api.create(secret="correct horse battery", api_key="sk_live_abcdef")
    webhook = await api.webhook_store.get("acme", created["id"])
    assert "correct horse" not in repr(webhook)
    assert "sk_live" not in repr(webhook)
    aad = binding("acme", created["id"], SealPurpose.SIGNING_SECRET)
    assert api.keyring.open(webhook.subscription.secrets[0].sealed, aad=aad) == b"correct horse battery"
    aad = binding("acme", created["id"], SealPurpose.API_KEY)
    assert api.keyring.open(webhook.subscription.api_key, aad=aad) == b"sk_live_abcdef"


async def test_a_client_certificate_is_shown_and_its_key_never(api):
    """The certificate is in every answer, the key in none, also where it is refused; null takes both away."""
    leaf = trustme.CA().issue_cert(common_name="client")
    certificate = "".join(pem.bytes().decode() for pem in leaf.cert_chain_pems)
    key = leaf.private_key_pem.bytes().decode()
    created = await api.create(client_certificate=certificate, client_key=key)
    assert (created["client_certificate"], created["client_key_set"]) == (certificate, True)
    path = f"/webhooks/{created['id']}"
    for method, at, body in (
        ("GET", path, None),
        ("GET", "/webhooks", None),
        ("PATCH", path, {"name": "n"}),
        ("PATCH", path, {"client_key": key}),
    ):
        text = await (await api.call(method, at, body)).text()
        assert key.splitlines()[1] not in text
    changed = await (await api.call("PATCH", path, {"client_certificate": None})).json()
    assert (changed["client_certificate"], changed["client_key_set"]) == (None, False)


async def test_patch_changes_what_was_sent_and_nothing_else(api):
    """A change touches its own fields and updated_at."""
    created = await api.create(name="before", max_attempts=3, headers={"X-One": "1"})
    api.clock.ms += 1234
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {"name": "after", "events": ["user.*", "user.*"]})
    changed = await response.json()
    assert response.status == 200
    expected = {**created, "name": "after", "events": ["user.*"], "updated_at": "2026-01-15T10:30:01.234Z"}
    expected.pop("secret")
    assert changed == {**expected, "backfill": None}


@pytest.mark.parametrize(("sent", "offered"), [({"status": "active"}, True), ({"status": "inactive"}, False)])
async def test_reactivating_a_disabled_webhook_offers_what_it_missed(api, sent, offered):
    """The answer has the time since it was disabled and the call that fills it; no other change offers anything."""
    created = await api.create()
    path = f"/webhooks/{created['id']}"
    stored = api.webhook_store.webhooks[created["id"]]
    disabled = dataclasses.replace(
        stored,
        subscription=dataclasses.replace(stored.subscription, status="disabled"),
        disabled_reason="failing",
        disabled_at_ms=START_MS - 7_200_000,
    )
    api.webhook_store.webhooks[created["id"]] = disabled
    renamed = await (await api.call("PATCH", path, {"name": "still disabled"})).json()
    assert (renamed["status"], renamed["backfill"]) == ("disabled", None)
    api.clock.ms += 1000
    changed = await (await api.call("PATCH", path, sent)).json()
    assert (changed["status"], changed["disabled_at"]) == (sent["status"], None)
    if not offered:
        assert changed["backfill"] is None
        return
    span = {"since": "2026-01-15T08:30:00Z", "until": "2026-01-15T10:30:06Z"}
    assert changed["backfill"] == {**span, "path": f"/v1{path}/replay", "body": {**span, "source": "events"}}
    made = await api.call("POST", changed["backfill"]["path"].removeprefix("/v1"), changed["backfill"]["body"])
    job = await made.json()
    # Sent at once, as it was offered: nothing of what workers didn't know yet is left out.
    assert (made.status, job["source"], job["since"], job["until"]) == (202, "events", *span.values())
    again = await (await api.call("PATCH", path, {"status": "active"})).json()
    assert again["backfill"] is None


async def test_null_goes_back_to_the_default(api):
    """Null in a change resets a field, and removes the API key."""
    created = await api.create(name="n", method="PUT", api_key="abc", max_attempts=3, rate_limit=2)
    assert created["api_key_set"]
    sent = dict.fromkeys(("name", "method", "api_key", "max_attempts", "rate_limit"))
    changed = await (await api.call("PATCH", f"/webhooks/{created['id']}", sent)).json()
    assert {name: changed[name] for name in sent if name != "api_key"} == {
        "name": None,
        "method": "POST",
        "max_attempts": 6,
        "rate_limit": None,
    }
    assert not changed["api_key_set"]


async def test_url_and_events_can_not_be_removed(api):
    """Null for a field that every webhook has is refused by name."""
    created = await api.create()
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {"url": None, "events": None})
    assert response.status == 422
    assert set(await problems(response)) == {"url", "events"}


async def test_headers_merge_one_by_one(api):
    """A change of headers adds, replaces whatever the case, removes by null, and null removes all."""
    created = await api.create(headers={"X-One": "1", "X-Two": "2"})
    path = f"/webhooks/{created['id']}"
    changed = await (await api.call("PATCH", path, {"headers": {"x-one": "11", "X-Two": None, "X-Three": "3"}})).json()
    assert changed["headers"] == {"x-one": "11", "X-Three": "3"}
    changed = await (await api.call("PATCH", path, {"headers": None})).json()
    assert changed["headers"] == {}


async def test_the_secret_is_rotated_not_patched(api):
    """A secret in a change is refused with the call that does it."""
    created = await api.create()
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {"secret": "s" * 20})
    assert response.status == 422
    assert "rotate-secret" in (await problems(response))["secret"]


async def test_cloudevents_fixes_the_content_type(api):
    """With payload_format cloudevents the content type is its own, and the old one comes back with another format."""
    created = await api.create(payload_format="cloudevents")
    assert created["content_type"] == "application/cloudevents+json"
    path = f"/webhooks/{created['id']}"
    changed = await (await api.call("PATCH", path, {"payload_format": "event"})).json()
    assert changed["content_type"] == "application/json"


async def test_cloudevents_excludes_form_encoding(api):
    """Form encoding and cloudevents are refused together, in one input and across a change."""
    form = "application/x-www-form-urlencoded"
    body = {"url": URL, "events": [], "payload_format": "cloudevents", "content_type": form}
    response = await api.call("POST", "/webhooks", body)
    assert set(await problems(response)) == {"content_type"}
    created = await api.create(content_type=form)
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {"payload_format": "cloudevents"})
    assert response.status == 422
    assert set(await problems(response)) == {"payload_format"}


async def test_delete_answers_204_then_404(api):
    """A deleted webhook is gone, and deleting it again says so."""
    created = await api.create()
    path = f"/webhooks/{created['id']}"
    response = await api.call("DELETE", path)
    assert (response.status, await response.read()) == (204, b"")
    for method in ("GET", "DELETE"):
        assert (await api.call(method, path)).status == 404
    assert (await api.call("PATCH", path, {"name": "n"})).status == 404


async def test_another_workspace_sees_nothing(api):
    """A key of another workspace gets 404 for every call about a webhook, and an empty list."""
    created = await api.create()
    path = f"/webhooks/{created['id']}"
    for method, at, body in (
        ("GET", path, None),
        ("PATCH", path, {"name": "mine"}),
        ("DELETE", path, None),
        ("GET", f"{path}/deliveries", None),
        ("GET", f"{path}/deliveries/del_1", None),
    ):
        response = await api.call(method, at, body, key="other")
        assert response.status == 404, (method, at)
        await problems(response)
    assert (await (await api.call("GET", "/webhooks", key="other")).json())["data"] == []
    assert (await (await api.call("GET", path)).json())["name"] is None


async def test_pages_follow_each_other_without_gap_or_repeat(api):
    """Following next_cursor shows every webhook once, newest first, also while others are added in front."""
    ids = []
    for number in range(5):
        api.clock.ms += 1000 * (number % 2)
        ids.append((await api.create())["id"])
    seen, cursor = [], ""
    while cursor is not None:
        response = await api.call("GET", f"/webhooks?limit=2{cursor and '&cursor=' + cursor}")
        page = await response.json()
        assert len(page["data"]) <= 2
        seen += page["data"]
        cursor = page["next_cursor"]
        api.clock.ms += 1000
        await api.create()
    assert sorted(row["id"] for row in seen) == sorted(ids)
    assert [row["created_at"] for row in seen] == sorted((row["created_at"] for row in seen), reverse=True)


async def test_unknown_event_types_are_warned_of(api):
    """A type that the catalogue doesn't hold is accepted with a warning; known ones and patterns are not."""
    created = await api.create(events=["user.created", "user.creatd", "user.*", "team.*", "*"])
    assert [warning["field"] for warning in created["warnings"]] == ["events.1", "events.3"]
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {"events": ["nope"]})
    assert [warning["field"] for warning in (await response.json())["warnings"]] == ["events.0"]


async def test_no_events_is_fine(api):
    """A webhook may subscribe to nothing."""
    assert (await api.create(events=[]))["events"] == []


async def test_a_stored_key_is_not_taken_to_another_origin(api):
    """A URL elsewhere without the key is a 422 that names the key and says what to send."""
    created = await api.create(api_key="sk_live_abcdef")
    answer = await api.call("PATCH", f"/webhooks/{created['id']}", {"url": "https://mine.example.net/"})
    assert answer.status == 422
    (error,) = (await answer.json())["errors"]
    assert error["field"] == "api_key"
    assert "give the key again with the URL, or null" in error["problem"]
    answer = await api.call(
        "PATCH", f"/webhooks/{created['id']}", {"url": "https://mine.example.net/", "api_key": None}
    )
    assert answer.status == 200
