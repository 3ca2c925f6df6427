"""Two workspaces that have one of everything, for the tables of who may do what to whose."""

import copy
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, merge, shown
from dispatcher.core.model import Origin
from tests.fakes.api_stack import START_MS
from tests.fakes.console_stack import ConsoleStack
from tests.fakes.event_records import ENVELOPE, raw
from tests.unit.mongo.samples import entry

OWN, OTHER = "acme", "globex"
SPAN = {"since": "2026-01-14T00:00:00Z", "until": "2026-01-16T00:00:00Z"}
SCOPES = ("read", "write", "admin")
SCOPE_SETS = tuple(each for size in (1, 2, 3) for each in itertools.combinations(SCOPES, size))
"""Every set of scopes that a key can have."""

_PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")
SHARED = {("event-types", "type"): "user.created"}
"""Parameters of paths that name what belongs to nobody."""


@dataclass(frozen=True)
class Tenant:
    """A workspace's things, by what a path calls them: the part before the parameter, and its name."""

    things: Mapping[tuple[str, str], str]

    def marks(self) -> set[str]:
        """What no other workspace may ever be shown."""
        return {*self.things.values(), self.things["webhooks", "id"].removeprefix("wh_")}


async def settle(stack: ConsoleStack, workspace: str, admin: str) -> Tenant:
    """Give a workspace one of everything; `admin` is one of its keys."""
    number = 1 if workspace == OWN else 2
    created = await stack.api.create(name=f"hook-of-{workspace}", key=admin)
    webhook_id = created["id"]
    record = stack.records.broker.append("events", raw(ENVELOPE, workspace_id=workspace))
    logged = entry(
        number,
        workspace_id=workspace,
        subscription_id=webhook_id,
        event_id="evt_1",
        origin=Origin("events", 0, record.offset, record.timestamp),
        at_ms=START_MS - 60_000,
        status=DeliveryStatus.FAILED,
        reason="gone",
        response_code=410,
    )
    stack.reader.deliveries.append(shown(merge(None, logged)))
    job = await (await stack.api.call("POST", f"/webhooks/{webhook_id}/replay", SPAN, key=admin)).json()
    key = await (await stack.api.call("POST", "/api-keys", {"scopes": ["read"]}, key=admin)).json()
    return Tenant(
        {
            ("webhooks", "id"): webhook_id,
            ("webhooks", "delivery_id"): logged.delivery_id,
            ("dead-letters", "delivery_id"): logged.delivery_id,
            ("dead-letters", "id"): logged.delivery_id,
            ("replays", "id"): job["id"],
            ("api-keys", "id"): key["id"],
        }
    )


async def settle_both(stack: ConsoleStack) -> tuple[Tenant, Tenant]:
    """Give both workspaces one of everything, and the first a key of each set of scopes."""
    for scopes in SCOPE_SETS:
        stack.api.keys["+".join(scopes)] = (await stack.api.api_keys.create(OWN, "+".join(scopes), scopes)).plaintext
    return await settle(stack, OWN, "admin"), await settle(stack, OTHER, "other")


def parameters_of(path: str) -> list[tuple[str, str]]:
    """List a path's parameters, each with the first part of the path: what it names depends on both."""
    return [(path.split("/")[1], name) for name in _PARAMETER.findall(path)]


def filled(path: str, tenant: Tenant) -> str:
    """Return a path with a workspace's own things in it."""
    return _filled(path, {each: _thing(tenant, each) for each in parameters_of(path)})


def trespasses(path: str, own: Tenant, other: Tenant) -> Iterator[tuple[str, str]]:
    """List what a path becomes with at least one thing of another workspace: it, and it with one that never was."""
    named = [each for each in parameters_of(path) if each not in SHARED]
    for mine in itertools.product((True, False), repeat=len(named)):
        if all(mine):
            continue
        values = {each: _thing(own if is_mine else other, each) for each, is_mine in zip(named, mine, strict=True)}
        never = {
            each: values[each] if is_mine else never_was(values[each])
            for each, is_mine in zip(named, mine, strict=True)
        }
        yield _filled(path, values), _filled(path, never)


def never_was(thing: str) -> str:
    """Return an id of the same form that nothing has."""
    return re.sub(r"[^_]+$", lambda found: "z" * len(found[0]), thing)


def without_ids(text: str, *tenants: Tenant) -> str:
    """Return a text with every id that it may repeat, and those that never were, made one."""
    for thing in {thing for tenant in tenants for thing in tenant.things.values()}:
        text = text.replace(thing, "ID").replace(never_was(thing), "ID")
    return text


def snapshot(stack: ConsoleStack) -> Any:
    """Return all that the stores hold and all that was sent, but for when a key was used last."""
    keys = {digest: replace(key, last_used_at_ms=None) for digest, key in stack.key_store.keys.items()}
    return {
        "webhooks": dict(stack.store.webhooks),
        "deliveries": copy.deepcopy(stack.reader.deliveries),
        "written": copy.deepcopy(stack.written.documents),
        "replays": dict(stack.replays.jobs),
        "keys": keys,
        "audit": list(stack.audit_store.entries),
        "idempotency": dict(stack.claims.claims),
        "records": {at: len(held) for at, held in stack.records.broker.partitions.items()},
        "sent": len(stack.sender.sent),
    }


def differing(before: Any, after: Any) -> list[str]:
    """Name what differs between two snapshots."""
    return [name for name in before if before[name] != after[name]]


def shows_any(text: str, marks: Iterable[str]) -> list[str]:
    """List the marks that stand in a text."""
    return sorted(mark for mark in marks if mark in text)


def _thing(tenant: Tenant, named: tuple[str, str]) -> str:
    if named in SHARED:
        return SHARED[named]
    if named not in tenant.things:
        pytest.fail(f"say in tests/fakes/tenants.py how to make what {named} names in a path")
    return tenant.things[named]


def _filled(path: str, values: Mapping[tuple[str, str], str]) -> str:
    def value_of(found: re.Match[str]) -> str:
        named = (path.split("/")[1], found[1])
        return values.get(named) or SHARED[named]

    return _PARAMETER.sub(value_of, path)
