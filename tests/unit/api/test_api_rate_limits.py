"""How many requests a key and a workspace may send, and how many unknown keys a client may try."""

import asyncio
from ipaddress import ip_network

import pytest

from dispatcher.operations import rate_limits
from dispatcher.operations.rate_limits import DOUBTFUL_AT_ONCE, Buckets, Rate
from tests.fakes.api_stack import ManualClock, api_stack, problems


@pytest.fixture
async def api(outage):
    async with api_stack(outage=outage, requests=Rate(2, 4), guesses=Rate(1, 3)) as stack:
        yield stack


async def test_a_key_gets_its_burst_and_then_its_rate(api):
    """After the burst the answer is 429 with Retry-After, a token later one request passes, and others aren't hit."""
    statuses = [(await api.call("GET", "/webhooks")).status for _ in range(5)]
    assert statuses == [200] * 4 + [429]
    response = await api.call("GET", "/webhooks")
    assert response.headers["Retry-After"] == "1"
    await problems(response)
    assert (await api.call("GET", "/webhooks", key="read")).status == 200
    api.clock.ms += 499
    assert (await api.call("GET", "/webhooks")).status == 429
    api.clock.ms += 1
    assert [(await api.call("GET", "/webhooks")).status for _ in range(2)] == [200, 429]


async def test_the_keys_of_a_workspace_share_its_rate(outage):
    """However many keys one workspace has, it gets no more; another workspace isn't hit."""
    async with api_stack(outage=outage, requests=Rate(2, 4), workspaces=Rate(2, 6)) as api:
        for number in range(3):
            api.keys[f"k{number}"] = (await api.api_keys.create("acme", None, ["read"])).plaintext
        statuses = [(await api.call("GET", "/webhooks", key=f"k{number % 3}")).status for number in range(7)]
        assert statuses == [200] * 6 + [429]
        response = await api.call("GET", "/webhooks", key="admin")
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert "of this workspace" in (await response.json())["detail"]
        assert (await api.call("GET", "/webhooks", key="other")).status == 200
        api.clock.ms += 500
        assert [(await api.call("GET", "/webhooks", key="k0")).status for _ in range(2)] == [200, 429]


async def test_guessing_keys_is_slowed_down(api):
    """After a few unknown keys the answer is 429 with Retry-After, until the client waited."""
    statuses = [(await api.call("GET", "/webhooks", key=f"whk_{number}")).status for number in range(4)]
    assert statuses == [401] * 3 + [429]
    response = await api.call("GET", "/webhooks", key="whk_x")
    assert response.status == 429
    assert int(response.headers["Retry-After"]) >= 1
    api.clock.ms += 1000
    assert (await api.call("GET", "/webhooks", key="whk_x")).status == 401


async def test_while_keys_are_guessed_few_are_looked_up_at_once(api, monkeypatch):
    """A flood of guesses from one place never has the store asked for more than a few keys at a time."""
    at_once, most, look_up = 0, 0, api.api_keys._store.by_hash

    async def slow(digest):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        return await look_up(digest)

    for number in range(3):
        await api.call("GET", "/webhooks", key=f"whk_{number}")
    monkeypatch.setattr(api.api_keys._store, "by_hash", slow)
    calls = [api.call("GET", "/webhooks", key=f"whk_again{number}") for number in range(20)]
    assert {response.status for response in await asyncio.gather(*calls)} == {429}
    assert most == DOUBTFUL_AT_ONCE


async def test_a_valid_key_gets_through_from_where_others_guess(api):
    """After a thousand guesses from its address a key that was never seen before is let in, and a revoked one isn't."""
    for number in range(1000):
        await api.call("GET", "/webhooks", key=f"whk_{number}")
    assert (await api.call("GET", "/webhooks", key="read")).status == 200
    (key,) = [key for key in await api.api_keys.list("acme") if key.name == "read"]
    await api.api_keys.revoke("acme", key.id)
    assert (await api.call("GET", "/webhooks", key="read")).status == 429


@pytest.fixture
async def behind_a_proxy(outage):
    """An API whose clients come by a proxy: this machine."""
    trusted = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))
    async with api_stack(outage=outage, guesses=Rate(1, 3), trusted_proxies=trusted) as stack:
        yield stack


async def guess(api, *forwarded_for):
    """Send unknown keys until the answer is 429; gives how many were answered 401."""
    for count in range(20):
        headers = {"X-Forwarded-For": ", ".join(forwarded_for)}
        status = (await api.call("GET", "/webhooks", key="whk_x", headers=headers)).status
        if status == 429:
            return count
        assert status == 401
    return 20


@pytest.mark.parametrize("other", ["203.0.113.8", "2001:db8:0:2::1", "192.0.2.1"])
async def test_behind_a_proxy_each_client_is_counted_by_itself(behind_a_proxy, other):
    """One client's guesses slow down that client, and none that comes by the same proxies."""
    assert await guess(behind_a_proxy, "203.0.113.7", "10.1.2.3") == 3
    assert await guess(behind_a_proxy, "203.0.113.7", "10.1.2.4") == 0
    assert await guess(behind_a_proxy, other, "10.1.2.3") == 3


async def test_addresses_of_one_ipv6_subscriber_are_one_client(behind_a_proxy):
    """Whoever has a network of 64 bits gets no fresh guesses with each of its addresses."""
    assert await guess(behind_a_proxy, "2001:db8::1") == 3
    assert await guess(behind_a_proxy, "2001:db8:0:0:ffff::2") == 0
    assert await guess(behind_a_proxy, "2001:db8:0:1::1") == 3


async def test_what_a_client_says_itself_is_not_believed(behind_a_proxy):
    """Left of what the last trusted proxy has written anything may stand."""
    assert await guess(behind_a_proxy, "198.51.100.1", "203.0.113.7") == 3
    assert await guess(behind_a_proxy, "198.51.100.2", "203.0.113.7") == 0


async def test_without_trusted_proxies_nothing_is_believed(api):
    """The connection's other end is the client, whatever the request says."""
    assert await guess(api, "198.51.100.1") == 3
    assert await guess(api, "198.51.100.2") == 0


async def test_what_is_no_key_is_no_guess(api):
    """Requests without a bearer token get 401 however many they are."""
    assert {(await api.call("GET", "/webhooks", key=None)).status for _ in range(10)} == {401}


def test_buckets_are_bounded(monkeypatch):
    """Full buckets are forgotten, and the number of others is bounded too."""
    monkeypatch.setattr(rate_limits, "MAX_BUCKETS", 10)
    clock = ManualClock()
    buckets = Buckets(Rate(1, 2), clock)
    for number in range(10):
        buckets.take(f"old {number}")
    clock.ms += 1000
    buckets.take("new")
    assert set(buckets._left) == {"new"}
    for number in range(50):
        buckets.take(f"busy {number}")
        assert len(buckets._left) <= 10


def test_a_clock_that_goes_on_fills_no_bucket_beyond_its_burst():
    """However long nobody came, no more than the burst may come at once."""
    clock = ManualClock()
    buckets = Buckets(Rate(100, 2), clock)
    clock.ms += 10_000_000
    for _ in range(2):
        assert buckets.wait_seconds("k") == 0
        buckets.take("k")
    assert buckets.wait_seconds("k") == pytest.approx(0.01)
