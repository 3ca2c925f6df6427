"""Every call of the API, by key, scope and workspace: the table is made of the router, so that no call is left out."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from dispatcher.api.application import Operations, all_routes, describe_api
from dispatcher.api.routes import Route
from tests.fakes.api_stack import URL
from tests.fakes.console_stack import ConsoleStack, console_stack
from tests.fakes.tenants import (
    OTHER,
    OWN,
    SCOPE_SETS,
    SPAN,
    Tenant,
    differing,
    filled,
    settle_both,
    shows_any,
    snapshot,
    trespasses,
    without_ids,
)

ROUTES = all_routes(Operations(*(cast("Any", None) for _ in Operations.__dataclass_fields__)))
OPEN = {("GET", "/openapi.json"), ("HEAD", "/openapi.json"), ("GET", "/docs"), ("HEAD", "/docs")}
"""What needs no key: it says what anybody may know."""
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/webhooks"): {"url": URL, "events": ["user.created"]},
    ("PATCH", "/webhooks/{id}"): {"name": "another"},
    ("POST", "/webhooks/{id}/test"): {},
    ("POST", "/webhooks/{id}/rotate-secret"): {},
    ("POST", "/webhooks/{id}/replay"): SPAN,
    ("POST", "/dead-letters/replay"): SPAN,
    ("POST", "/dead-letters/purge"): {"reason": "gone"},
    ("POST", "/api-keys"): {"scopes": ["read"]},
}
"""A body that each call takes."""
NAMES_THINGS = {"subscription", "delivery_ids", "target"}
"""Fields and parameters that name things; the tests below send another workspace's in each."""


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


each_route = pytest.mark.parametrize("route", ROUTES, ids=named)


@pytest.fixture
async def stack():
    async with console_stack() as made:
        yield made


@pytest.fixture
async def tenants(stack: ConsoleStack) -> tuple[Tenant, Tenant]:
    return await settle_both(stack)


async def ask(stack: ConsoleStack, route: Route, path: str, key: str | None) -> Any:
    body = BODIES.get((route.method, route.path))
    if body is None and route.body is not None:
        pytest.fail(f"say in BODIES what {named(route)} takes")
    return await stack.api.call(route.method, path, body, key=key)


async def test_the_table_has_every_route_of_the_router(stack):
    """Whatever the application serves under /v1 is in the list that this table is made of, or needs no key."""
    listed = {(route.method, route.path) for route in ROUTES}
    listed |= {("HEAD", path) for method, path in listed if method == "GET"} | {("OPTIONS", r.path) for r in ROUTES}
    served = set()
    for route in stack.server.app.router.routes():
        path = route.resource.canonical
        if path.startswith("/v1"):
            served.add((route.method, path.removeprefix("/v1")))
    assert served == listed | OPEN


def test_what_changes_something_is_for_whom_may_write():
    """A read scope only looks, and keys and the audit log are the admin's."""
    assert {route.method for route in ROUTES if route.scope == "read"} == {"GET"}
    assert {route.path for route in ROUTES if route.scope == "admin"} == {"/api-keys", "/api-keys/{id}", "/audit-log"}


def test_the_readme_has_every_call_with_its_scope():
    """What people read of calls and scopes is what holds."""
    readme = (Path(__file__).parents[3] / "dispatcher/api/README.md").read_text()
    written = re.findall(r"^\| `([A-Z]+) /v1([^`?]+)[^`]*` \| (\w+) \|", readme, re.MULTILINE)
    assert sorted(written) == sorted((route.method, route.path, route.scope) for route in ROUTES)


@each_route
async def test_without_a_known_key_nothing_is_told(stack, tenants, route):
    """401, whether what the path names is there or not, and nothing was changed."""
    before = snapshot(stack)
    paths = {filled(route.path, tenants[0]), *(path for pair in trespasses(route.path, *tenants) for path in pair)}
    for key in (None, "", "whk_unknown", "no key at all"):
        answers = set()
        for path in sorted(paths):
            response = await ask(stack, route, path, key)
            assert response.status == 401, path
            answers.add(json.dumps({**await response.json(), "request_id": ""}))
        assert len(answers) == 1
    assert differing(before, snapshot(stack)) == []


@each_route
async def test_each_set_of_scopes_may_do_what_the_route_says(stack, tenants, route):
    """A key that lacks the route's scope gets 403 and changes nothing; one that has it gets through."""
    allowed = [scopes for scopes in SCOPE_SETS if route.scope in scopes or "admin" in scopes]
    assert 0 < len(allowed) < len(SCOPE_SETS)
    path = filled(route.path, tenants[0])
    for scopes in SCOPE_SETS:
        if scopes not in allowed:
            before = snapshot(stack)
            response = await ask(stack, route, path, "+".join(scopes))
            assert (response.status, differing(before, snapshot(stack))) == (403, []), scopes
            assert route.scope in (await response.json())["detail"]
    first, *others = allowed
    assert (await ask(stack, route, path, "+".join(first))).status == route.status
    for scopes in others:
        # What the first did may be in the way of the others, and that they may do it is what counts.
        assert (await ask(stack, route, path, "+".join(scopes))).status not in (401, 403), scopes


@each_route
async def test_another_workspace_is_told_what_it_would_be_of_nothing(stack, tenants, route):
    """Its admin gets 404 for things of this one, word for word as for what never was, and nothing is changed."""
    own, other = tenants[1], tenants[0]
    for path, never in trespasses(route.path, own, other):
        before = snapshot(stack)
        response, empty = [await ask(stack, route, each, "other") for each in (path, never)]
        assert (response.status, empty.status) == (404, 404), path
        told, told_of_none = [
            without_ids(json.dumps({**await each.json(), "request_id": ""}), own, other) for each in (response, empty)
        ]
        assert told == told_of_none
        assert differing(before, snapshot(stack)) == []


@each_route
async def test_no_answer_shows_what_is_another_workspace_s(stack, tenants, route):
    """What the other's admin is answered, about its own, has no id and no name of this one in it."""
    marks = {*tenants[0].marks(), f"hook-of-{OWN}"}
    response = await ask(stack, route, filled(route.path, tenants[1]), "other")
    assert response.status == route.status
    assert shows_any(await response.text(), marks) == []
    if route.method == "GET" and "{" not in route.path and route.path != "/event-types":
        assert shows_any(await (await ask(stack, route, route.path, "admin")).text(), marks), "this would notice"


async def test_a_change_touches_no_other_workspace(stack, tenants):
    """Purges and replays without an id, and with the ids of another workspace, leave its things as they were."""
    theirs = tenants[0]
    webhook_id, delivery_id = theirs.things["webhooks", "id"], theirs.things["webhooks", "delivery_id"]
    for path, body, status in (
        ("/dead-letters/purge", SPAN, 200),
        ("/dead-letters/purge", {"delivery_ids": [delivery_id]}, 200),
        ("/dead-letters/purge", {"subscription": webhook_id}, 200),
        ("/dead-letters/replay", {"delivery_ids": [delivery_id]}, 202),
        ("/dead-letters/replay", {"subscription": webhook_id}, 409),
    ):
        before = snapshot(stack)
        response = await stack.api.call("POST", path, body, key="other")
        assert response.status == status, (path, body)
        assert _of(OWN, before) == _of(OWN, snapshot(stack)), (path, body)


@pytest.mark.parametrize(
    ("path", "parameter", "thing"),
    [
        ("/dead-letters", "subscription", ("webhooks", "id")),
        ("/audit-log", "target", ("webhooks", "id")),
        ("/audit-log", "target", ("api-keys", "id")),
    ],
)
async def test_a_filter_by_another_workspace_s_thing_finds_nothing(stack, tenants, path, parameter, thing):
    """The list is empty for the other, as for what never was, and isn't for its owner."""
    asked = f"{path}?{parameter}={tenants[0].things[thing]}"
    assert (await (await stack.api.call("GET", asked, key="other")).json())["data"] == []
    assert (await (await stack.api.call("GET", asked, key="admin")).json())["data"] != []


async def test_a_summary_by_another_workspace_s_webhook_counts_nothing(stack, tenants):
    """Nothing can be counted that can't be seen."""
    asked = f"/dead-letters/summary?subscription={tenants[0].things['webhooks', 'id']}"
    assert (await (await stack.api.call("GET", asked, key="other")).json())["total"] == 0
    assert (await (await stack.api.call("GET", asked, key="admin")).json())["total"] == 1


@pytest.mark.parametrize("path", ["/webhooks", "/api-keys", "/audit-log", "/replays"])
async def test_a_cursor_of_another_workspace_is_a_place_in_one_s_own_list(stack, tenants, path):
    """Whoever gets hold of a cursor pages through nothing but its own rows."""
    await stack.api.create(key="admin")
    await stack.api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")
    again = f"/webhooks/{tenants[0].things['webhooks', 'id']}/replay"
    await stack.api.call("POST", again, SPAN, key="admin")
    cursor = (await (await stack.api.call("GET", f"{path}?limit=1", key="admin")).json())["next_cursor"]
    assert cursor
    response = await stack.api.call("GET", f"{path}?cursor={cursor}", key="other")
    assert response.status == 200
    assert shows_any(await response.text(), tenants[0].marks()) == []


async def test_an_idempotency_key_of_another_workspace_gets_no_kept_answer(stack, tenants):
    """The same key, path and body of another workspace is a request of its own."""
    headers = {"Idempotency-Key": "same"}
    body = BODIES["POST", "/webhooks"]
    answers = [await stack.api.call("POST", "/webhooks", body, key=key, headers=headers) for key in ("admin", "other")]
    assert [answer.status for answer in answers] == [201, 201]
    assert "Idempotency-Replayed" not in answers[1].headers
    assert (await answers[0].json())["secret"] != (await answers[1].json())["secret"]


def test_what_names_things_is_known_here():
    """A new field or parameter that names a thing is noticed: the tests above must send another workspace's in it."""
    document = describe_api()
    fields = {
        name
        for schema in _request_schemas(document)
        for name in document["components"]["schemas"][schema].get("properties", {})
    }
    parameters = {
        parameter["name"]
        for path in document["paths"].values()
        for call in path.values()
        for parameter in call.get("parameters", ())
        if parameter.get("in") == "query"
    }
    plain = {"cursor", "limit", "since", "until", "status", "type", "reason", "response_code", "action", "source"}
    plain |= {"rate", "secret", "overlap_seconds", "name", "scopes", "expires_at", "description", "url", "method"}
    plain |= {"content_type", "events", "api_key", "api_key_header", "notification_type", "payload_format"}
    plain |= {"max_attempts", "headers", "timeout_seconds", "rate_limit", "client_certificate", "client_key"}
    assert (fields | parameters) - plain == NAMES_THINGS


def _request_schemas(document: dict[str, Any]) -> set[str]:
    found = set()
    for path in document["paths"].values():
        for call in path.values():
            for content in call.get("requestBody", {}).get("content", {}).values():
                found.add(content["schema"]["$ref"].rpartition("/")[2])
    return found


def _of(workspace: str, held: dict[str, Any]) -> dict[str, Any]:
    """Return what of a snapshot is a workspace's."""
    assert workspace != OTHER
    webhooks = [each for each in held["webhooks"].values() if each.subscription.workspace_id == workspace]
    rows = {name: held[name] for name in ("deliveries", "audit")}
    rows |= {name: held[name].values() for name in ("written", "replays", "keys")}
    owned = {name: [each for each in values if each.workspace_id == workspace] for name, values in rows.items()}
    return {"webhooks": webhooks, **owned}
