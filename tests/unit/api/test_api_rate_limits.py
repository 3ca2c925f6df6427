"""How many requests a key may send, and how many unknown keys an address may try."""

import pytest

from dispatcher.operations import rate_limits
from dispatcher.operations.rate_limits import Buckets, Rate
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


async def test_guessing_keys_is_slowed_down_without_asking_the_store(api):
    """After a few unknown keys the address gets 429 and the store isn't asked any more, until it waited."""
    statuses = [(await api.call("GET", "/webhooks", key=f"whk_{number}")).status for number in range(4)]
    assert statuses == [401] * 3 + [429]
    asked = api.outage.calls
    response = await api.call("GET", "/webhooks", key="whk_x")
    assert response.status == 429
    assert int(response.headers["Retry-After"]) >= 1
    assert api.outage.calls == asked
    api.clock.ms += 1000
    assert (await api.call("GET", "/webhooks", key="whk_x")).status == 401


async def test_guesses_do_not_lock_out_whom_is_known(api):
    """From an address that guesses, a key that was valid before still gets through, until it is revoked."""
    assert (await api.call("GET", "/webhooks")).status == 200
    for number in range(4):
        await api.call("GET", "/webhooks", key=f"whk_{number}")
    assert (await api.call("GET", "/webhooks", key="read")).status == 429
    assert (await api.call("GET", "/webhooks")).status == 200
    (key,) = [key for key in await api.api_keys.list("acme") if key.name == "all"]
    await api.api_keys.revoke("acme", key.id)
    assert (await api.call("GET", "/webhooks")).status == 429


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
