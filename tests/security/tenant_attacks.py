"""Attacks of one tenant, or of a stranger, on the others' API and console; see `attack_form.py` for their form."""

import asyncio
from contextlib import nullcontext
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dispatcher.api import authentication, forwarding
from dispatcher.app import serving
from dispatcher.app.open_connections import OpenConnections
from dispatcher.app.serving import Listener, listen
from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.sealing import Keyring
from dispatcher.operations import api_keys, rate_limits
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.gates import Gate
from dispatcher.operations.rate_limits import Rate, RateLimits
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from dispatcher.settings import QuotaSettings
from tests.fakes.api_stack import URL, HttpsOnly, ManualClock, api_stack, draws
from tests.fakes.http import MemorySender
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.stores import MemoryApiKeyStore, MemoryWebhookStore
from tests.security.attack_form import Attacks
from tests.unit.operations.test_expensive_reads import SlowCounts, turns

TENANT_ATTACKS = Attacks()
attack = TENANT_ATTACKS.attack
LOOPBACK = (ip_network("127.0.0.0/8"),)
KEYRING = Keyring([b"k" * 32])


async def _identify_of_old(keys: Any, limits: Any, bearer: str, address: str) -> Any:
    """Tell whoever comes from where keys are guessed to wait, without a look at the key."""
    problem = limits.guess_problem(address)
    if problem is not None:
        raise problem
    try:
        return await keys.authenticate(bearer)
    except Exception:
        limits.count_guess(address)
        raise


@attack(
    "guessing API keys until everybody behind the same proxy is locked out",
    protection="a valid key is let through wherever it comes from",
    where="dispatcher/operations/authentication.py",
    off=lambda patch: patch.setattr(authentication, "identify", _identify_of_old),
)
async def lock_others_out(_: Path) -> bool:
    """Guess for long, then come with a good key that nobody has seen before."""
    async with api_stack(guesses=Rate(1, 3)) as api:
        for number in range(20):
            await api.call("GET", "/webhooks", key=f"whk_{number}")
        return bool((await api.call("GET", "/webhooks")).status == 429)


async def _guessed(addresses: list[str]) -> int:
    """Guess once from each of these addresses, by a trusted proxy; gives how many guesses were taken."""
    async with api_stack(guesses=Rate(1, 3), trusted_proxies=LOOPBACK) as api:
        statuses = [
            (await api.call("GET", "/webhooks", key="whk_x", headers={"X-Forwarded-For": address})).status
            for address in addresses
        ]
    return statuses.count(401)


@attack(
    "guessing from one address after the other of an IPv6 network of one's own",
    protection="IPv6 counts by networks of 64 bits",
    where="dispatcher/core/client_address.py",
    off=lambda patch: patch.setattr(rate_limits, "network_of", lambda address: address),
)
async def guess_from_a_network(_: Path) -> bool:
    """Get more guesses than one client may."""
    return await _guessed([f"2001:db8::{number:x}" for number in range(1, 20)]) > 3


@attack(
    "guessing under another made-up X-Forwarded-For each time",
    protection="only what trusted proxies wrote is believed",
    where="dispatcher/core/client_address.py",
    off=lambda patch: patch.setattr(
        forwarding, "client_address", lambda _peer, values, _trusted: values[0].split(",")[0]
    ),
)
async def forge_the_address(_: Path) -> bool:
    """Get more guesses than one client may."""
    return await _guessed([f"198.51.100.{number}, 203.0.113.7" for number in range(1, 20)]) > 3


def _by_key_alone(limits: Any, key: Any) -> None:
    wait = limits._requests.wait_seconds(key.id)
    if wait:
        raise rate_limits._too_many("too many", wait)
    limits._requests.take(key.id)


@attack(
    "one API key more for each hundred requests a second",
    protection="the keys of a workspace share a rate",
    where="dispatcher/operations/rate_limits.py",
    off=lambda patch: patch.setattr(RateLimits, "take_request", _by_key_alone),
)
async def multiply_keys(_: Path) -> bool:
    """Send twice of what a workspace may, each key within its own rate."""
    async with api_stack(requests=Rate(1, 5), workspaces=Rate(1, 10)) as api:
        for number in range(4):
            api.keys[f"k{number}"] = (await api.api_keys.create("acme", None, ["read"])).plaintext
        statuses = [(await api.call("GET", "/webhooks", key=f"k{number % 4}")).status for number in range(20)]
    return statuses.count(200) > 10


@attack(
    "webhooks without number, each of which every worker holds in memory",
    protection="a quota, counted in the step that stores",
    where="dispatcher/operations/webhooks.py",
    off=lambda patch: patch.setattr(Webhooks, "_most", property(lambda _: None, lambda _, __: None), raising=False),
)
async def fill_the_memory(_: Path) -> bool:
    """Make more webhooks than allowed."""
    async with api_stack(quotas=QuotaSettings(webhooks=3)) as api:
        body = {"url": URL, "events": []}
        return [(await api.call("POST", "/webhooks", body)).status for _ in range(6)].count(201) > 3


def _no_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "enter", lambda *_: nullcontext())


@attack(
    "test events to an endpoint that hangs, until the API has no connections left",
    protection="few are under way of each workspace, and in all",
    where="dispatcher/operations/gates.py",
    off=_no_gate,
)
async def hang_test_events(_: Path) -> bool:
    """Have more test events under way than a workspace may."""
    store, sender = MemoryWebhookStore(), MemorySender()
    sender.answers = lambda _: None
    webhooks = Webhooks(store, ManualClock(), HttpsOnly(), KEYRING, draws())
    webhook_id = (await webhooks.create("acme", {"url": URL, "events": []})).webhook.subscription.id
    tests = EventTests(
        store, load_catalogue(None), sender, MemoryDeliveryLog(), KEYRING, ManualClock(), draws(), "Test/1.0"
    )
    tasks = [asyncio.create_task(tests.send("acme", webhook_id, {})) for _ in range(10)]
    await turns()
    under_way = len(sender.sent)
    sender.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    return under_way > rate_limits.TESTS_UNDER_WAY


@attack(
    "fifty counts of dead letters at once, for a database that is busy with them alone",
    protection="few run of each workspace, and in all",
    where="dispatcher/operations/gates.py",
    off=_no_gate,
)
async def count_and_count(_: Path) -> bool:
    """Have more counts run than a workspace may."""
    store = SlowCounts()
    letters = DeadLetters(store, None, ManualClock())  # type: ignore[arg-type]
    tasks = [asyncio.create_task(letters.summary("acme", FailedFilter())) for _ in range(50)]
    await turns()
    running = len(store.going)
    store.release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    return running > 2


@attack(
    "half-open requests until the API can accept nobody any more",
    protection="one too many ends the connection that was silent for longest",
    where="dispatcher/app/open_connections.py",
    off=lambda patch: patch.setattr(OpenConnections, "heard", lambda among, each: among._open.setdefault(each)),
)
async def hold_connections(_: Path) -> bool:
    """Hold more connections than there may be."""
    most, serving.MAX_CONNECTIONS = serving.MAX_CONNECTIONS, 10
    try:
        async with listen(web.Application(), Listener("127.0.0.1", 0)) as port:
            pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
            for _, writer in pairs:
                writer.write(b"GET / HTTP/1.1\r\nHos")
            ended = [asyncio.create_task(reader.read()) for reader, _ in pairs]
            await asyncio.wait(ended[:20], timeout=1)
            held = sum(not each.done() for each in ended)
            for _, writer in pairs:
                writer.close()
            await asyncio.gather(*ended, return_exceptions=True)
        return held > 10
    finally:
        serving.MAX_CONNECTIONS = most


@attack(
    "using a key that was revoked by another process",
    protection="a key is remembered for a second at most",
    where="dispatcher/operations/api_keys.py",
    off=lambda patch: patch.setattr(api_keys, "_CACHE_SECONDS", 3600.0),
)
async def use_a_revoked_key(_: Path) -> bool:
    """Go on with a key one second after it was revoked elsewhere."""
    store = MemoryApiKeyStore()
    async with api_stack(api_key_store=store) as first, api_stack(api_key_store=store, seed="second") as second:
        key = await first.api_keys.create("acme", None, ["read"])
        await second.call("GET", "/webhooks", key=key.plaintext)
        await first.api_keys.revoke("acme", key.key.id)
        second.clock.ms += 1000
        return bool((await second.call("GET", "/webhooks", key=key.plaintext)).status == 200)
