# ruff: noqa: D102 - the ports say what each method promises
"""The whole API over given stores, on a real socket, with keys of every kind at hand."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.api.application import Operations, make_api
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.sealing import Keyring
from dispatcher.core.urls import EndpointUrl
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.audit import Audit
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.idempotency import Idempotency
from dispatcher.operations.rate_limits import Rate, RateLimits
from dispatcher.operations.replays import Replays
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import (
    ApiKeyStore,
    AuditStore,
    DeliveryLogReader,
    FailedDeliveries,
    IdempotencyStore,
    ReplayStore,
    WebhookStore,
)
from dispatcher.settings import Network, QuotaSettings
from tests.fakes.replays import MemoryReplays
from tests.fakes.stores import (
    MemoryApiKeyStore,
    MemoryAuditStore,
    MemoryDeliveryLogReader,
    MemoryFailedDeliveries,
    MemoryIdempotencyStore,
    MemoryWebhookStore,
    Outage,
)

START_MS = 1_768_473_000_000
"""2026-01-15T10:30:00Z."""
PLENTY = Rate(1e6, 1_000_000)
URL = "https://hooks.example.com/in"


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class HttpsOnly:
    """An address policy that a test can foresee: HTTPS, and never the host `private.example.com`."""

    def check_url(self, url: EndpointUrl) -> str | None:
        if url.scheme != "https":
            return "plain HTTP is not allowed here; use https://"
        return "this address is private; use a public one" if url.host == "private.example.com" else None


def draws(seed: str = "") -> Any:
    """Return a source of bytes that look random and never repeat; another seed gives others."""
    numbers = itertools.count()

    def draw(size: int) -> bytes:
        return hashlib.shake_256(f"{seed}{next(numbers)}".encode()).digest(size)

    return draw


@dataclass
class ApiStack:
    """A running API. `keys` holds the texts of API keys by their kind."""

    client: TestClient
    clock: ManualClock
    outage: Outage
    webhook_store: WebhookStore
    api_keys: ApiKeys
    keyring: Keyring
    keys: dict[str, str]

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = "all", **options: Any) -> Any:
        """Send a request; `body` goes as JSON. Returns the response, read to its end."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        if body is not None:
            options["json"] = body
        response: ClientResponse = await self.client.request(method, f"/v1{path}", headers=headers, **options)
        await response.read()
        return response

    async def create(self, *, key: str = "all", **fields: Any) -> dict[str, Any]:
        """Create a webhook that has at least a URL and events; returns the answer's body."""
        response = await self.call("POST", "/webhooks", {"url": URL, "events": ["user.created"], **fields}, key=key)
        assert response.status == 201, await response.text()
        created: dict[str, Any] = await response.json()
        return created


@asynccontextmanager
async def api_stack(
    *,
    webhook_store: WebhookStore | None = None,
    api_key_store: ApiKeyStore | None = None,
    log: DeliveryLogReader | None = None,
    failed: FailedDeliveries | None = None,
    replay_store: ReplayStore | None = None,
    audit_store: AuditStore | None = None,
    idempotency_store: IdempotencyStore | None = None,
    known_types: Collection[str] = (),
    catalogue: Catalogue | None = None,
    outage: Outage | None = None,
    requests: Rate = PLENTY,
    workspaces: Rate = PLENTY,
    guesses: Rate = PLENTY,
    quotas: QuotaSettings | None = None,
    trusted_proxies: Sequence[Network] = (),
    seed: str = "",
    add: Callable[[web.Application, Operations, RateLimits, ManualClock], None] | None = None,
    **operations: Any,
) -> AsyncIterator[ApiStack]:
    """Run the API over stores, those in memory by default; further operations (`tests`) are given.

    `add` may mount another application beside it. Several over the same stores stand for several processes; each has
    a `seed` of its own.
    """
    clock, draw, keyring = ManualClock(), draws(seed), Keyring([b"k" * 32])
    outage = outage or Outage()
    webhook_store = webhook_store or MemoryWebhookStore(outage)
    audit = Audit(audit_store or MemoryAuditStore(outage), clock, draw)
    most = quotas or QuotaSettings(1_000_000, 1_000_000)
    keys = ApiKeys(api_key_store or MemoryApiKeyStore(outage), clock, draw, audit=audit, most=most.api_keys)
    webhooks = Webhooks(
        webhook_store,
        clock,
        HttpsOnly(),
        keyring,
        draw,
        known_types=lambda: known_types,
        audit=audit,
        most=most.webhooks,
    )
    log = log or MemoryDeliveryLogReader(outage)
    deliveries = Deliveries(log, webhook_store)
    if failed is None and isinstance(log, MemoryDeliveryLogReader):
        failed = MemoryFailedDeliveries(log)
    replays = Replays(replay_store or MemoryReplays(clock, outage), webhook_store, clock, draw, audit=audit)
    texts = {}
    for kind, workspace, scopes, lifetime_ms in (
        ("all", "acme", ("read", "write"), None),
        ("read", "acme", ("read",), None),
        ("write", "acme", ("write",), None),
        ("admin", "acme", ("admin",), None),
        ("expiring", "acme", ("read", "write"), 60_000),
        ("other", "globex", ("admin",), None),
    ):
        expires_at_ms = None if lifetime_ms is None else clock.now_ms() + lifetime_ms
        texts[kind] = (await keys.create(workspace, kind, scopes, expires_at_ms)).plaintext
    given = {
        "webhooks": webhooks,
        "deliveries": deliveries,
        "keys": keys,
        "audit": audit,
        "catalogue": catalogue or Catalogue(),
        "rotation": SecretRotation(webhook_store, clock, keyring, draw, audit=audit),
        "replays": replays,
        "letters": None if failed is None else DeadLetters(failed, replays, clock, audit=audit),
        **operations,
    }
    absent = dict.fromkeys(Operations.__dataclass_fields__.keys() - given.keys())
    idempotency = Idempotency(idempotency_store or MemoryIdempotencyStore(outage), clock, keyring, draw)
    limits = RateLimits(clock, requests=requests, workspaces=workspaces, guesses=guesses)
    asked = Operations(**given, **absent)
    app = make_api(asked, idempotency, limits, trusted_proxies)
    if add is not None:
        add(app, asked, limits, clock)
    async with TestClient(TestServer(app)) as client:
        yield ApiStack(client, clock, outage, webhook_store, keys, keyring, texts)


async def problems(response: ClientResponse) -> dict[str, str]:
    """Return the wrong fields that a problem names."""
    assert response.content_type == "application/problem+json", await response.text()
    body = await response.json()
    assert body["status"] == response.status
    return {error["field"]: error["problem"] for error in body.get("errors", [])}
