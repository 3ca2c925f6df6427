"""What a workspace may have: the calls say what to do where it has as much."""

import pytest

from dispatcher.settings import QuotaSettings
from tests.fakes.api_stack import URL, api_stack, problems

NEW = {"url": URL, "events": ["user.created"]}


@pytest.fixture
async def api(outage):
    async with api_stack(outage=outage, quotas=QuotaSettings(webhooks=2, api_keys=6)) as stack:
        yield stack


async def test_a_workspace_has_so_many_webhooks(api):
    """The one too many gets 409 with what to do and is not stored; another workspace, and a deletion, have room."""
    first = await api.create()
    await api.create()
    response = await api.call("POST", "/webhooks", NEW)
    await problems(response)
    assert response.status == 409
    assert (await response.json())["detail"] == (
        "this workspace has as many webhooks as it may, 2; delete one that isn't needed, "
        "or ask the operator to raise DISPATCHER_MAX_WEBHOOKS_PER_WORKSPACE"
    )
    assert len((await (await api.call("GET", "/webhooks")).json())["data"]) == 2
    await api.create(key="other")
    assert (await api.call("DELETE", f"/webhooks/{first['id']}")).status == 204
    await api.create()


async def test_what_there_is_can_be_changed_at_the_quota(api):
    """Only new ones are refused."""
    created = [await api.create() for _ in range(2)]
    assert (await api.call("PATCH", f"/webhooks/{created[0]['id']}", {"name": "n"})).status == 200


async def test_nothing_is_written_down_of_what_was_refused(api):
    """The audit log has two creations, of two webhooks."""
    for _ in range(4):
        await api.call("POST", "/webhooks", NEW)
    log = await (await api.call("GET", "/audit-log?action=webhook.create", key="admin")).json()
    assert len(log["data"]) == 2


async def test_a_refusal_at_the_quota_does_not_use_an_idempotency_key_up(api):
    """The same request is done once there is room."""
    first, headers = await api.create(), {"Idempotency-Key": "k"}
    await api.create()
    assert (await api.call("POST", "/webhooks", NEW, headers=headers)).status == 409
    await api.call("DELETE", f"/webhooks/{first['id']}")
    assert (await api.call("POST", "/webhooks", NEW, headers=headers)).status == 201


async def test_a_workspace_has_so_many_api_keys(api):
    """Of six keys five are there already; the seventh is refused, until one is revoked."""
    created = await (await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")).json()
    response = await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")
    assert response.status == 409
    assert "as many API keys as it may, 6" in (await response.json())["detail"]
    assert (await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="other")).status == 201
    assert (await api.call("DELETE", f"/api-keys/{created['id']}", key="admin")).status == 204
    assert (await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")).status == 201
