"""Idempotency-Key: a POST that is sent twice is done once."""

import asyncio

import pytest

from dispatcher.core.errors import UnavailableError
from dispatcher.operations.idempotency import KEPT_SECONDS, LEASE_SECONDS
from tests.fakes.api_stack import URL, api_stack, problems
from tests.fakes.stores import MemoryIdempotencyStore

NEW = {"url": URL, "events": ["user.created"]}
KEY = {"Idempotency-Key": "0b0e5a5e-once"}


@pytest.fixture
def store(outage):
    return MemoryIdempotencyStore(outage)


@pytest.fixture
async def api(outage, store):
    async with api_stack(outage=outage, idempotency_store=store) as stack:
        yield stack


async def count(api):
    return len((await (await api.call("GET", "/webhooks")).json())["data"])


async def test_the_same_request_gets_the_same_answer(api):
    """Status, body, secret and headers come back as they were, marked as replayed, and one webhook is made."""
    first = await api.call("POST", "/webhooks", NEW, headers=KEY)
    second = await api.call("POST", "/webhooks", NEW, headers=KEY)
    assert first.status == second.status == 201
    assert await first.read() == await second.read()
    for name in ("Location", "ETag", "Content-Type", "Cache-Control"):
        assert first.headers[name] == second.headers[name]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert await count(api) == 1


async def test_another_body_or_query_is_refused(api):
    """The same key with another request is a 422 that names the header."""
    await api.call("POST", "/webhooks", NEW, headers=KEY)
    for path, body in (("/webhooks", {**NEW, "name": "n"}), ("/webhooks?a=1", NEW)):
        response = await api.call("POST", path, body, headers=KEY)
        assert response.status == 422
        assert set(await problems(response)) == {"Idempotency-Key"}
    assert await count(api) == 1


async def test_keys_count_for_one_call_of_one_workspace(api):
    """Another workspace and another path may use the same key; another key of the same workspace gets the answer."""
    first = await api.call("POST", "/webhooks", NEW, headers=KEY, key="admin")
    assert await (await api.call("POST", "/webhooks", NEW, headers=KEY, key="all")).read() == await first.read()
    other = await api.call("POST", "/webhooks", NEW, headers=KEY, key="other")
    assert (await other.json())["id"] != (await first.json())["id"]
    response = await api.call("POST", "/api-keys", {"scopes": ["read"]}, headers=KEY, key="admin")
    assert response.status == 201


async def test_scope_comes_before_the_kept_answer(api):
    """A key that may not write doesn't get an answer that a writer got."""
    await api.call("POST", "/webhooks", NEW, headers=KEY)
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY, key="read")).status == 403


async def test_an_answer_is_kept_for_a_day(api):
    """A millisecond before the day is over the answer is the old one, then the request is done anew."""
    await api.call("POST", "/webhooks", NEW, headers=KEY)
    api.clock.ms += KEPT_SECONDS * 1000 - 1
    await api.call("POST", "/webhooks", NEW, headers=KEY)
    assert await count(api) == 1
    api.clock.ms += 1
    await api.call("POST", "/webhooks", NEW, headers=KEY)
    assert await count(api) == 2


async def test_a_failure_that_would_come_again_is_kept(api):
    """A 422 comes back as it was."""
    first = await api.call("POST", "/webhooks", {"url": "x"}, headers=KEY)
    second = await api.call("POST", "/webhooks", {"url": "x"}, headers=KEY)
    assert first.status == second.status == 422
    assert second.headers["Idempotency-Replayed"] == "true"
    assert set(await problems(second)) == {"url", "events"}


async def test_a_passing_failure_is_not_kept(api, monkeypatch):
    """After a 503 of the operation the same request is done anew."""
    monkeypatch.setattr(api.webhook_store, "insert", _fail)
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY)).status == 503
    monkeypatch.undo()
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY)).status == 201


async def _fail(_webhook, **_options):
    raise UnavailableError("away")


async def test_a_request_under_way_is_waited_for(api, monkeypatch):
    """Those that meet the first one under way get its answer, and it is done once."""
    begun, release, insert = asyncio.Event(), asyncio.Event(), api.webhook_store.insert

    async def slow(webhook, **options):
        begun.set()
        await release.wait()
        return await insert(webhook, **options)

    monkeypatch.setattr(api.webhook_store, "insert", slow)
    calls = [asyncio.create_task(api.call("POST", "/webhooks", NEW, headers=KEY)) for _ in range(4)]
    await begun.wait()
    asked = api.outage.calls
    async with asyncio.timeout(20):
        while api.outage.calls < asked + 6:  # each of the others has looked, and looked again
            await asyncio.sleep(0)
    release.set()
    answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {201}
    assert len({await answer.read() for answer in answers}) == 1
    assert sorted("Idempotency-Replayed" in answer.headers for answer in answers) == [False, True, True, True]
    assert await count(api) == 1


async def test_whoever_waits_does_what_failed_in_passing(api, monkeypatch):
    """Where the first one ends in a 503, the one that waited for it does the request."""
    begun, release, insert = asyncio.Event(), asyncio.Event(), api.webhook_store.insert

    async def away(_webhook, **_options):
        begun.set()
        await release.wait()
        monkeypatch.setattr(api.webhook_store, "insert", insert)
        raise UnavailableError("away")

    monkeypatch.setattr(api.webhook_store, "insert", away)
    first = asyncio.create_task(api.call("POST", "/webhooks", NEW, headers=KEY))
    await begun.wait()
    second = asyncio.create_task(api.call("POST", "/webhooks", NEW, headers=KEY))
    release.set()
    assert [(await first).status, (await second).status] == [503, 201]
    assert await count(api) == 1


async def test_a_wrong_media_type_does_not_use_the_key_up(api):
    """What the header was to blame for is done once the header is right."""
    first = await api.call("POST", "/webhooks", data=b"{}", headers={**KEY, "Content-Type": "text/plain"})
    again = await api.call("POST", "/webhooks", data=b"{}", headers={**KEY, "Content-Type": "application/json"})
    assert [first.status, again.status] == [415, 422]
    assert set(await problems(again)) == {"url", "events"}


async def test_a_request_under_way_for_too_long_is_not_done_twice(api, monkeypatch):
    """One that has waited long enough gets 409 with Retry-After, and the answer later."""
    monkeypatch.setattr("dispatcher.api.idempotency.WAIT_SECONDS", 0)
    begun, release, insert = asyncio.Event(), asyncio.Event(), api.webhook_store.insert

    async def slow(webhook, **options):
        begun.set()
        await release.wait()
        return await insert(webhook, **options)

    monkeypatch.setattr(api.webhook_store, "insert", slow)
    first = asyncio.create_task(api.call("POST", "/webhooks", NEW, headers=KEY))
    await begun.wait()
    second = await api.call("POST", "/webhooks", NEW, headers=KEY)
    assert second.status == 409
    assert int(second.headers["Retry-After"]) >= 1
    await problems(second)
    release.set()
    answer = await (await first).read()
    assert await (await api.call("POST", "/webhooks", NEW, headers=KEY)).read() == answer


async def test_a_request_whose_process_died_is_done_anew_after_its_lease(api, store, monkeypatch):
    """A claim without an answer holds until its lease ends; another body is refused even then."""
    monkeypatch.setattr("dispatcher.api.idempotency.WAIT_SECONDS", 0)
    await api.call("POST", "/webhooks", NEW, headers=KEY)
    ((claim_id, (claim, _)),) = store.claims.items()
    store.claims[claim_id] = (claim, None)
    api.clock.ms += LEASE_SECONDS * 1000 - 1
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY)).status == 409
    api.clock.ms += 1
    assert (await api.call("POST", "/webhooks", {**NEW, "name": "n"}, headers=KEY)).status == 422
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY)).status == 201


async def test_kept_answers_are_sealed(api, store):
    """What is stored shows nothing of the answer; with another encryption key it can't be given, nor the key reused."""
    created = await (await api.call("POST", "/webhooks", NEW, headers=KEY)).json()
    ((claim_id, (claim, sealed)),) = store.claims.items()
    assert created["secret"].encode() not in sealed
    assert KEY["Idempotency-Key"] not in claim_id
    store.claims[claim_id] = (claim, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY)).status == 422
    assert await count(api) == 1


async def test_an_answer_that_can_not_be_kept_is_given(api, store, monkeypatch):
    """Whoever waits for a secret gets it, also where the answer could not be stored for a second request."""

    async def away(*_):
        raise UnavailableError("away")

    monkeypatch.setattr(store, "finish", away)
    assert (await api.call("POST", "/webhooks", NEW, headers=KEY)).status == 201


@pytest.mark.parametrize("key", ["", "k" * 256, "ü", "a\tb"])
async def test_a_key_that_is_none_is_named(api, key):
    """A key is 1 to 255 printable ASCII characters."""
    response = await api.call("POST", "/webhooks", NEW, headers={"Idempotency-Key": key})
    assert response.status == 422
    assert set(await problems(response)) == {"Idempotency-Key"}
    assert (await api.call("POST", "/webhooks", NEW, headers={"Idempotency-Key": "k" * 255})).status == 201


async def test_two_keys_are_named(api):
    """The header comes once."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Authorization", f"Bearer {api.keys['all']}")]
    response = await api.client.post("/v1/webhooks", json=NEW, headers=headers)
    assert response.status == 422


async def test_without_a_key_every_request_is_done(api):
    """Nothing is kept for a request that doesn't ask for it."""
    for _ in range(2):
        assert (await api.call("POST", "/webhooks", NEW)).status == 201
    assert await count(api) == 2


async def test_an_optional_body_is_read_with_a_key_too(api):
    """A call whose body may be left out sees the body that came with a key."""
    path = f"/webhooks/{(await api.create())['id']}/rotate-secret"
    rotated = await (await api.call("POST", path, {"secret": "my own secret, long"}, headers=KEY)).json()
    assert rotated["secret"] == "my own secret, long"
    made = await (await api.call("POST", path, headers={"Idempotency-Key": "2"})).json()
    assert made["secret"].startswith("whsec_")
