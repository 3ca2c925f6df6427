"""The calls of a workspace's admin: API keys and the audit log."""

import json

import pytest

from dispatcher.core.errors import UnavailableError
from tests.fakes.api_stack import START_MS, problems

LATER = "2026-01-15T11:30:00Z"


async def test_a_key_is_shown_once_and_works(api):
    """A new key's text is in the answer to its creation alone, and it calls within its scopes."""
    response = await api.call("POST", "/api-keys", {"name": "ci", "scopes": ["read"]}, key="admin")
    created = await response.json()
    assert response.status == 201
    text = created.pop("key")
    assert text.startswith("whk_")
    assert created == {
        "id": created["id"],
        "name": "ci",
        "scopes": ["read"],
        "created_at": "2026-01-15T10:30:00Z",
        "last_used_at": None,
        "expires_at": None,
    }
    assert (await api.call("GET", "/webhooks", key=text)).status == 200
    assert (await api.call("POST", "/webhooks", {}, key=text)).status == 403
    listed = await (await api.call("GET", "/api-keys", key="admin")).text()
    assert created["id"] in listed
    assert text not in listed


async def test_a_key_can_expire(api):
    """A key with a time is refused from then on."""
    body = {"scopes": ["read"], "expires_at": LATER}
    created = await (await api.call("POST", "/api-keys", body, key="admin")).json()
    assert created["expires_at"] == LATER
    api.clock.ms += 3_600_000 - 1
    assert (await api.call("GET", "/webhooks", key=created["key"])).status == 200
    api.clock.ms += 1
    assert (await api.call("GET", "/webhooks", key=created["key"])).status == 401


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"scopes"}),
        ({"scopes": []}, {"scopes"}),
        ({"scopes": ["root"]}, {"scopes.0"}),
        ({"scopes": "read"}, {"scopes"}),
        ({"scopes": ["read"], "name": ""}, {"name"}),
        ({"scopes": ["read"], "name": "two\nlines"}, {"name"}),
        ({"scopes": ["read"], "expires_at": "tomorrow"}, {"expires_at"}),
        ({"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, {"expires_at"}),
        ({"scopes": ["read"], "workspace_id": "globex"}, {"workspace_id"}),
        ({"scope": ["read"], "name": 1, "expires_at": 5}, {"scope", "scopes", "name", "expires_at"}),
    ],
)
async def test_wrong_fields_of_a_key_are_all_named(api, body, fields):
    """What is wrong is named, and no key is made."""
    before = await (await api.call("GET", "/api-keys", key="admin")).json()
    response = await api.call("POST", "/api-keys", body, key="admin")
    assert response.status == 422
    assert set(await problems(response)) == fields
    assert await (await api.call("GET", "/api-keys", key="admin")).json() == before


async def test_a_revoked_key_is_gone(api):
    """A key that was revoked is refused and listed no more; revoking it again is a 404."""
    created = await (await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")).json()
    assert (await api.call("GET", "/webhooks", key=created["key"])).status == 200
    path = f"/api-keys/{created['id']}"
    assert (await api.call("DELETE", path, key="other")).status == 404
    assert (await api.call("DELETE", path, key="admin")).status == 204
    assert (await api.call("GET", "/webhooks", key=created["key"])).status == 401
    assert (await api.call("DELETE", path, key="admin")).status == 404
    assert created["id"] not in await (await api.call("GET", "/api-keys", key="admin")).text()


async def test_a_key_does_not_revoke_itself(api):
    """An admin key can't lock its workspace out: it is told how to do it, and another one can."""
    rows = (await (await api.call("GET", "/api-keys", key="admin")).json())["data"]
    (own,) = [row["id"] for row in rows if row["name"] == "admin"]
    response = await api.call("DELETE", f"/api-keys/{own}", key="admin")
    assert response.status == 409
    assert f"dispatcher api-keys revoke {own}" in (await response.json())["detail"]
    second = await (await api.call("POST", "/api-keys", {"scopes": ["admin"]}, key="admin")).json()
    assert (await api.call("DELETE", f"/api-keys/{own}", key=second["key"])).status == 204
    assert (await api.call("GET", "/api-keys", key="admin")).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api-keys"), ("POST", "/api-keys"), ("DELETE", "/api-keys/key_1"), ("GET", "/audit-log")],
)
async def test_only_admins_see_keys_and_changes(api, method, path):
    """Reading and writing scopes don't reach keys and audit log."""
    assert (await api.call(method, path, key="all")).status == 403


async def test_keys_are_paged(api):
    """Following next_cursor shows each key of the workspace once, and none of another."""
    seen, cursor = [], ""
    while cursor is not None:
        page = await (await api.call("GET", f"/api-keys?limit=2{cursor and '&cursor=' + cursor}", key="admin")).json()
        assert len(page["data"]) <= 2
        seen += [key["name"] for key in page["data"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == ["admin", "all", "expiring", "read", "write"]


async def test_changes_are_written_down_with_their_maker(api):
    """Every change of webhooks and keys stands in the log, newest first, with who, when, what, and no secret."""
    created = await api.create(secret="correct horse battery", api_key="sk_live_abcdef", name="before")
    path = f"/webhooks/{created['id']}"
    api.clock.ms += 1000
    await api.call("PATCH", path, {"name": "after", "api_key": "sk_live_other"}, key="admin")
    api.clock.ms += 1000
    await api.call("POST", f"{path}/rotate-secret", {"secret": "staple staple staple"})
    api.clock.ms += 1000
    await api.call("DELETE", path)
    api.clock.ms += 1000
    key = await (await api.call("POST", "/api-keys", {"scopes": ["read"], "name": "ci"}, key="admin")).json()
    api.clock.ms += 1000
    await api.call("DELETE", f"/api-keys/{key['id']}", key="admin")
    response = await api.call("GET", "/audit-log?since=2026-01-15T10:30:00.001Z", key="admin")
    entries = (await response.json())["data"]
    assert [(entry["action"], entry["target_id"], entry["actor"]["name"]) for entry in entries] == [
        ("api_key.revoke", key["id"], "admin"),
        ("api_key.create", key["id"], "admin"),
        ("webhook.delete", created["id"], "all"),
        ("webhook.rotate_secret", created["id"], "all"),
        ("webhook.update", created["id"], "admin"),
    ]
    assert entries[-1]["at"] == "2026-01-15T10:30:01Z"
    assert entries[-1]["actor"]["type"] == "api_key"
    assert {"field": "name", "before": "before", "after": "after"} in entries[-1]["changes"]
    assert {"field": "api_key", "before": None, "after": None} in entries[-1]["changes"]
    text = json.dumps(entries) + await (await api.call("GET", "/audit-log", key="admin")).text()
    for secret in ("correct horse", "sk_live", "staple", key["key"]):
        assert secret not in text


async def test_what_was_refused_is_no_change(api):
    """A change that was not made isn't in the log."""
    created = await api.create()
    path = f"/webhooks/{created['id']}"
    await api.call("PATCH", path, {"name": 1})
    await api.call("PATCH", path, {"name": "n"}, headers={"If-Match": '"9"'})
    await api.call("PATCH", path, {})
    await api.call("DELETE", "/webhooks/wh_1")
    response = await api.call("GET", f"/audit-log?target={created['id']}", key="admin")
    assert [entry["action"] for entry in (await response.json())["data"]] == ["webhook.create"]


async def test_the_log_is_filtered_and_paged_within_the_workspace(api):
    """Filters narrow the log, following next_cursor shows each entry once, and another workspace sees its own."""
    for _ in range(3):
        api.clock.ms += 1000
        await api.create()
    seen, cursor = [], ""
    while cursor is not None:
        query = f"limit=2&action=webhook.create{cursor and '&cursor=' + cursor}"
        page = await (await api.call("GET", f"/audit-log?{query}", key="admin")).json()
        seen += [entry["id"] for entry in page["data"]]
        cursor = page["next_cursor"]
    assert len(set(seen)) == len(seen) == 3
    other = await (await api.call("GET", "/audit-log", key="other")).json()
    assert [entry["action"] for entry in other["data"]] == ["api_key.create"]
    response = await api.call("GET", "/audit-log?action=nope&since=x&target=", key="admin")
    assert set(await problems(response)) == {"action", "since", "target"}


async def test_an_outage_of_the_log_holds_up_no_change(api, monkeypatch):
    """A webhook whose creation can't be written down is made, and its secret shown."""

    async def away(*_):
        raise UnavailableError("away")

    monkeypatch.setattr("tests.fakes.stores.MemoryAuditStore.insert", away)
    assert (await api.create())["secret"]
    assert api.clock.ms == START_MS
