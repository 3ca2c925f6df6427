"""Who may call what."""

import pytest

from tests.fakes.api_stack import URL, problems

NEW = {"url": URL, "events": []}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer whk_unknown",
        "Bearer nonsense",
        "Bearer whk_\xfc",
        "whk_x",
    ],
)
async def test_no_key_or_an_unknown_one_is_a_401(api, header):
    """Without a known key the answer is 401, and WWW-Authenticate says how to send one."""
    headers = {} if header is None else {"Authorization": header}
    response = await api.call("GET", "/webhooks", key=None, headers=headers)
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="webhooks"')
    assert ("invalid_token" in response.headers["WWW-Authenticate"]) == (header is not None)
    await problems(response)


async def test_the_scheme_ignores_case(api):
    """`bearer` is as good as `Bearer`."""
    response = await api.call("GET", "/webhooks", key=None, headers={"Authorization": f"bearer {api.keys['all']}"})
    assert response.status == 200


@pytest.mark.parametrize(
    ("key", "reads", "writes"),
    [("read", 200, 403), ("write", 403, 201), ("all", 200, 201), ("admin", 200, 201)],
)
async def test_reading_and_writing_need_their_scopes(api, key, reads, writes):
    """GET needs read, changes need write, and admin implies both."""
    assert (await api.call("GET", "/webhooks", key=key)).status == reads
    assert (await api.call("POST", "/webhooks", NEW, key=key)).status == writes


async def test_a_missing_scope_is_named(api):
    """403 says which scope is missing, and the challenge says so to programs."""
    created = await api.create()
    for method, body in (("PATCH", {"name": "n"}), ("DELETE", None)):
        response = await api.call(method, f"/webhooks/{created['id']}", body, key="read")
        assert response.status == 403
        assert "insufficient_scope" in response.headers["WWW-Authenticate"]
        assert "write" in (await response.json())["detail"]


async def test_a_caller_without_scope_learns_nothing_of_the_body(api):
    """The key is checked before the body is read: a malformed one doesn't show."""
    response = await api.call("POST", "/webhooks", key="read", data=b"{", headers={"Content-Type": "application/json"})
    assert response.status == 403


async def test_an_expired_key_is_refused_at_once(api):
    """A key works until its time, and not at it."""
    api.clock.ms += 59_999
    assert (await api.call("GET", "/webhooks", key="expiring")).status == 200
    api.clock.ms += 1
    response = await api.call("GET", "/webhooks", key="expiring")
    assert response.status == 401
    assert "expired" in (await response.json())["detail"]


async def test_used_keys_are_written_down_when_the_api_stops(api):
    """What keys were used isn't lost with the process."""
    await api.call("GET", "/webhooks", key="read")
    await api.client.close()
    used = {key.name for key in await api.api_keys.list("acme") if key.last_used_at_ms is not None}
    assert used == {"read"}
