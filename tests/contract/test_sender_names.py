"""Names and the address guard: a real resolver on a name server of the test's own."""

import asyncio

import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import NoConnectionError
from dispatcher.core.exchange import SendFailure
from dispatcher.http import names
from dispatcher.http.names import Resolver
from dispatcher.http.pool import IDLE_SECONDS, MAX_AGE_SECONDS
from dispatcher.http.sender import Sender
from tests.contract.endpoints import LOOPBACK, OK, Visit, make_request, repeat, serving, serving_names, wait_until


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
async def server():
    async with serving_names() as made:
        yield made


@pytest.fixture
async def resolver(server):
    made = Resolver(nameservers=[server.address])
    yield made
    await made.close()


async def test_a_name_is_resolved_and_reached(server):
    """A request to a name goes to the address that the name server gave, with the name in the Host header."""
    server.addresses["hook.example.com"] = ["127.0.0.1"]
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    async with serving(repeat(OK)) as endpoint:
        assert (await sender.exchange(make_request(endpoint.url_for("Hook.Example.com")))).status == 200
        assert f"Host: hook.example.com:{endpoint.port}".encode() in endpoint.requests[0][0]
    await sender.close()


async def test_a_name_with_one_forbidden_address_is_refused(server):
    """One forbidden answer among allowed ones refuses all: no connection is made to any."""
    server.addresses["mixed.example.com"] = ["127.0.0.1", "10.0.0.1"]
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    async with serving(repeat(OK)) as endpoint:
        response = await sender.exchange(make_request(endpoint.url_for("mixed.example.com")))
        assert (response.status, response.failure) == (0, SendFailure.FORBIDDEN_ADDRESS)
        assert "private" in response.detail
        assert "10.0.0.1" not in response.detail
        assert endpoint.connections == 0
    await sender.close()


async def test_a_second_answer_is_checked_like_the_first(server):
    """A name that changes to a forbidden address after its first answer is refused at the next connection."""
    server.addresses["rebind.example.com"] = [["127.0.0.1"], ["10.0.0.1"]]
    server.ttl = 0
    clock = Clock()
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address], clock=clock))
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with serving(repeat(answer)) as endpoint:
        request = make_request(endpoint.url_for("rebind.example.com"))
        assert (await sender.exchange(request)).status == 200
        clock.now += 61
        assert (await sender.exchange(request)).failure is SendFailure.FORBIDDEN_ADDRESS
        assert endpoint.connections == 1
    assert server.queries == ["rebind.example.com"] * 2
    await sender.close()


async def test_a_kept_connection_keeps_its_address_and_a_new_one_is_checked_again(server):
    """While a connection is kept, another answer changes nothing and isn't asked for; the next one is checked."""
    server.addresses["flips.example.com"] = ["127.0.0.1"]
    server.ttl = 0
    clock = Clock()
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address], clock=clock), clock=clock)
    async with serving(repeat(OK)) as endpoint:
        request = make_request(endpoint.url_for("flips.example.com"))
        assert (await sender.exchange(request)).status == 200
        server.addresses["flips.example.com"] = ["10.0.0.1"]
        for _ in range(11):
            clock.now += IDLE_SECONDS - 3
            assert (await sender.exchange(request)).status == 200
        assert (endpoint.connections, len(server.queries)) == (1, 1)
        clock.now += MAX_AGE_SECONDS - 11 * (IDLE_SECONDS - 3)
        assert (await sender.exchange(request)).failure is SendFailure.FORBIDDEN_ADDRESS
        assert (endpoint.connections, len(server.queries), len(endpoint.requests)) == (1, 2, 12)
    await sender.close()


async def test_a_resent_request_is_checked_again(server):
    """A request whose kept connection had ended goes to no address that wasn't checked for it."""
    server.addresses["flips.example.com"] = ["127.0.0.1"]
    server.ttl = 0
    clock = Clock()
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address], clock=clock))

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await visit.request()

    async with serving(script) as endpoint:
        request = make_request(endpoint.url_for("flips.example.com"))
        assert (await sender.exchange(request)).status == 200
        server.addresses["flips.example.com"] = ["10.0.0.1"]
        clock.now += 61
        assert (await sender.exchange(request)).failure is SendFailure.FORBIDDEN_ADDRESS
        assert (endpoint.connections, sender.stats().resent_total) == (1, 1)
    await sender.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]", "localhost"])
async def test_literals_are_guarded_in_every_notation(server, host):
    """No notation of a forbidden address gets a connection or even a look-up."""
    sender = Sender(AddressPolicy(allow_http=True), resolver=Resolver(nameservers=[server.address]))
    async with serving(repeat(OK)) as endpoint:
        response = await sender.exchange(make_request(endpoint.url_for(host)))
        assert response.failure is SendFailure.FORBIDDEN_ADDRESS
        assert endpoint.connections == 0
    assert server.queries == []
    await sender.close()


async def test_opened_literals_are_reached_in_every_notation(server):
    """Odd notations of an address that the operator opened connect to that address."""
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    async with serving(repeat(OK)) as endpoint:
        for host in ("127.1", "0x7f000001", "2130706433"):
            assert (await sender.exchange(make_request(endpoint.url_for(host)))).status == 200
    assert server.queries == []
    await sender.close()


async def test_an_ipv6_literal_is_reached(server):
    """An endpoint on IPv6 is reached by its bracketed literal."""
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    async with serving(repeat(OK), host="::1") as endpoint:
        assert (await sender.exchange(make_request(endpoint.url_for("[::1]")))).status == 200
        assert f"Host: [::1]:{endpoint.port}".encode() in endpoint.requests[0][0]
    await sender.close()


async def test_the_next_address_is_tried(server):
    """Where the first of several addresses refuses the connection, the next one is used."""
    server.addresses["two.example.com"] = ["127.0.0.2", "127.0.0.1"]
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    async with serving(repeat(OK)) as endpoint:
        assert (await sender.exchange(make_request(endpoint.url_for("two.example.com")))).status == 200
    await sender.close()


@pytest.mark.parametrize(
    ("name", "words"), [("missing.example.com", "no such name"), ("empty.example.com", "the name has no address")]
)
async def test_a_name_without_addresses_fails_in_words(server, name, words):
    """An unknown name and one without addresses are DNS failures that say which."""
    server.addresses["empty.example.com"] = []
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    response = await sender.exchange(make_request(f"http://{name}:8080/"))
    assert (response.failure, response.detail) == (SendFailure.DNS, words)
    await sender.close()


async def test_a_silent_zone_delays_nobody_else(server):
    """A hundred names that are never answered delay neither another workspace's name nor one of the same."""
    silent = [f"n{number}.silent.example.com" for number in range(100)]
    server.addresses.update(dict.fromkeys(silent))
    server.addresses["healthy.example.com"] = ["127.0.0.1"]
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address], lookup_seconds=30))
    outcomes = []
    async with serving(repeat(OK)) as endpoint:
        for name in silent:
            sender.send(make_request(endpoint.url_for(name), workspace_id="a", timeout_seconds=30), outcomes.append)
        await wait_until(lambda: len(server.queries) >= names.LOOKUPS_PER_WORKSPACE, "the silent look-ups run")
        response = await sender.exchange(make_request(endpoint.url_for("healthy.example.com"), workspace_id="b"))
        assert response.status == 200
        assert outcomes == []
    await sender.close()
    assert {outcome.failure for outcome in outcomes} == {SendFailure.ABORTED}


async def test_one_workspaces_look_ups_are_bounded(server):
    """A workspace has so many look-ups at a time; the others wait their turn within their own deadline."""
    server.addresses.update(dict.fromkeys(f"n{number}.example.com" for number in range(5)))
    resolver = Resolver(nameservers=[server.address], per_workspace=2, lookup_seconds=0.3)
    waiting = [asyncio.create_task(resolver.resolve(f"n{number}.example.com", "a")) for number in range(5)]
    await wait_until(lambda: len(server.queries) == 2, "two queries")
    assert set(server.queries) == {"n0.example.com", "n1.example.com"}
    assert all(isinstance(one, NoConnectionError) for one in await asyncio.gather(*waiting, return_exceptions=True))
    assert len(set(server.queries)) == 5
    await resolver.close()


async def test_a_look_up_without_an_answer_fails(server, monkeypatch):
    """A name server that never answers fails the look-up in its own time, not at the request's deadline."""
    server.addresses["silent.example.com"] = None
    monkeypatch.setattr(names, "_TRY_SECONDS", 20)  # c-ares' own patience must not be what ends it
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address], lookup_seconds=0.2))
    response = await sender.exchange(make_request("http://silent.example.com:8080/", timeout_seconds=10))
    assert response.failure is SendFailure.DNS
    assert "no answer in time" in response.detail
    await sender.close()


async def test_a_look_up_counts_against_the_deadline(server):
    """A look-up that outlasts the request's own deadline is a time-out, and says at which step."""
    server.addresses["silent.example.com"] = None
    sender = Sender(LOOPBACK, resolver=Resolver(nameservers=[server.address]))
    response = await sender.exchange(make_request("http://silent.example.com:8080/", timeout_seconds=0.2))
    assert response.failure is SendFailure.TIMEOUT
    assert "resolving the name" in response.detail
    await sender.close()


async def test_look_ups_of_one_name_are_one_query(server, resolver):
    """Many look-ups of a name at the same time ask once, for all workspaces; one that gives up ends no other."""
    server.addresses["one.example.com"] = ["9.9.9.9"]
    waiting = [asyncio.create_task(resolver.resolve("one.example.com", f"w{number}")) for number in range(50)]
    await asyncio.sleep(0)
    waiting.pop(0).cancel()
    assert set(await asyncio.gather(*waiting)) == {("9.9.9.9",)}
    assert server.queries == ["one.example.com"]


async def test_look_ups_that_waited_for_a_place_are_one_query_too(server):
    """Two workspaces that both had to wait for a place ask for the same name once."""
    server.addresses.update(
        {"a.silent.example.com": None, "b.silent.example.com": None, "one.example.com": ["9.9.9.9"]}
    )
    resolver = Resolver(nameservers=[server.address], per_workspace=1, lookup_seconds=0.3)
    blocked = [asyncio.create_task(resolver.resolve(f"{who}.silent.example.com", who)) for who in "ab"]
    await wait_until(lambda: len(server.queries) == 2, "both places are taken")
    waiting = [asyncio.create_task(resolver.resolve("one.example.com", who)) for who in "ab"]
    await asyncio.gather(*blocked, return_exceptions=True)
    assert set(await asyncio.gather(*waiting)) == {("9.9.9.9",)}
    assert server.queries.count("one.example.com") == 1
    await resolver.close()


async def test_answers_are_kept_for_their_ttl_and_at_most_a_minute(server):
    """An answer is asked for again after its TTL, and after 60 s whatever its TTL."""
    clock = Clock()
    resolver = Resolver(nameservers=[server.address], clock=clock)
    server.addresses["long.example.com"] = ["9.9.9.9"]
    server.ttl = 86_400
    for moved, queries in ((0, 1), (59, 1), (2, 2), (59, 2), (2, 3)):
        clock.now += moved
        assert await resolver.resolve("long.example.com", "a") == ("9.9.9.9",)
        assert len(server.queries) == queries
    await resolver.close()


async def test_failures_are_kept_for_five_seconds(server):
    """A failed look-up isn't repeated for 5 s; then the name is asked for again and may have come to life."""
    clock = Clock()
    resolver = Resolver(nameservers=[server.address], clock=clock)
    for moved, queries in ((0, 1), (4, 1), (2, 2)):
        clock.now += moved
        with pytest.raises(NoConnectionError):
            await resolver.resolve("late.example.com", "a")
        assert len(server.queries) == queries
    server.addresses["late.example.com"] = ["9.9.9.9"]
    clock.now += 6
    assert await resolver.resolve("late.example.com", "a") == ("9.9.9.9",)
    await resolver.close()


async def test_the_cache_is_bounded(server):
    """The oldest answers make room for new ones."""
    resolver = Resolver(nameservers=[server.address], max_cached=3)
    for number in range(6):
        server.addresses[f"n{number}.example.com"] = ["9.9.9.9"]
        await resolver.resolve(f"n{number}.example.com", "a")
    assert len(resolver._answers) == 3
    assert resolver._gates == {}
    await resolver.close()


async def test_the_hosts_file_is_read(server, resolver):
    """`localhost` is resolved without a query, as the system's resolver does."""
    assert "127.0.0.1" in await resolver.resolve("localhost", "a")
    assert server.queries == []


async def test_closing_ends_waiting_look_ups(server):
    """A look-up that waits when the resolver is closed fails, and so does every later one."""
    server.addresses["silent.example.com"] = None
    resolver = Resolver(nameservers=[server.address])
    waiting = asyncio.create_task(resolver.resolve("silent.example.com", "a"))
    await wait_until(lambda: bool(server.queries), "the query is out")
    await resolver.close()
    with pytest.raises(NoConnectionError):
        await waiting
    with pytest.raises(NoConnectionError):
        await resolver.resolve("other.example.com", "a")
