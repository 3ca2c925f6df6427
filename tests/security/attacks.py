"""Attacks on the sender: what each tries, what protects, where that stands, and how the protection is taken out.

Each attack is a function that says whether it succeeded. `test_attacks.py` runs each twice: as things are, where it
must fail, and without its protection, where it must succeed: so that it is known to be an attack.
"""

import asyncio
import dataclasses
import re
import ssl
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import trustme

from dispatcher.core import addresses, rendering, urls
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import InvalidUrlError
from dispatcher.core.exchange import ClientCertificate, Request, SendFailure
from dispatcher.core.model import SealedSecret, Subscription
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http import client_tls, connection, dial, pool, proxy, sender
from dispatcher.http.connection import Connection
from dispatcher.http.names import Resolver
from dispatcher.http.pool import Pool
from dispatcher.http.sender import Sender
from dispatcher.http.tls import make_strict_context
from tests.contract.endpoints import (
    OK,
    Authority,
    Visit,
    make_request,
    proxying,
    repeat,
    self_signed,
    serving,
    serving_in_a_thread,
    serving_names,
)
from tests.security.attack_form import Attacks, Off

OUTSIDE = AddressPolicy(allow_http=True, allowed_networks=(IPv4Network("127.0.0.1/32"),))
"""Of the loopback the first address stands for the internet, all others for what is inside."""
INSIDE = "127.0.0.2"
MANY_BYTES = 2_000_000
CLIENTS = trustme.CA()

ATTACKS = Attacks()
attack = ATTACKS.attack


async def _ask(request: Request, names: str = "", **options: object):
    """Send one request with a sender of its own."""
    resolver = Resolver(nameservers=[names]) if names else None
    made = Sender(options.pop("policy", OUTSIDE), resolver=resolver, **options)
    try:
        return await made.exchange(request)
    finally:
        await made.close()


# Where a connection goes.


def _allow_every_address(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AddressPolicy, "check_address", lambda _, __: None)


@attack(
    "a private address in an odd notation",
    protection="literals are read as a resolver reads them, and checked",
    where="dispatcher/core/addresses.py",
    off=lambda patch: patch.setattr(AddressPolicy, "check_url", lambda _, __: None),
)
async def odd_notation(_: Path) -> bool:
    """Reach 127.0.0.2 as one number."""
    async with serving(repeat(OK), host=INSIDE) as inside:
        await _ask(make_request(inside.url_for("2130706434")))
        return inside.connections > 0


@attack(
    "a private IPv4 address in IPv6 form",
    protection="the address inside is judged",
    where="dispatcher/core/addresses.py",
    off=lambda patch: patch.setattr(AddressPolicy, "_find_v6", lambda _, __: None),
)
async def mapped_address(_: Path) -> bool:
    """Reach 127.0.0.2 as an IPv4-mapped address."""
    async with serving(repeat(OK), host=INSIDE) as inside:
        await _ask(make_request(inside.url_for(f"[::ffff:{INSIDE}]")))
        return inside.connections > 0


@attack(
    "a private address behind an ISATAP router",
    protection="the address inside is judged",
    where="dispatcher/core/addresses.py",
    off=lambda patch: patch.setattr(addresses, "_ISATAP", frozenset()),
)
async def isatap(_: Path) -> bool:
    """Get an ISATAP form of 10.0.0.1 past the check."""
    return AddressPolicy().check_address("2a01:4f8::5efe:10.0.0.1") is None


@attack(
    "a name that leads inside",
    protection="the addresses behind a name are checked where the connection is made",
    where="dispatcher/http/guard.py",
    off=_allow_every_address,
)
async def inside_name(_: Path) -> bool:
    """Reach 127.0.0.2 by a name."""
    async with serving_names(inside_example=[INSIDE]) as names, serving(repeat(OK), host=INSIDE) as inside:
        await _ask(make_request(inside.url_for("inside.example")), names.address)
        return inside.connections > 0


async def _check_the_first_alone(url, workspace_id, policy, resolver):
    found = await resolver.resolve(url.host, workspace_id)
    assert policy.check_address(found[0]) is None
    return found


@attack(
    "a private address hidden among public ones",
    protection="one forbidden answer refuses all",
    where="dispatcher/http/guard.py",
    off=lambda patch: patch.setattr(dial, "find_addresses", _check_the_first_alone),
)
async def mixed_answer(_: Path) -> bool:
    """Let the first address, which is allowed, refuse the connection, so that the second is tried."""
    names_served = serving_names(mixed_example=["127.0.0.1", INSIDE])
    async with names_served as names, serving(repeat(OK), host=INSIDE) as inside:
        await _ask(make_request(inside.url_for("mixed.example")), names.address)
        return inside.connections > 0


async def _check_then_look_up_again(url, workspace_id, policy, resolver):
    assert policy.check_address((await resolver.resolve(url.host, workspace_id))[0]) is None
    resolver._answers.clear()
    return await resolver.resolve(url.host, workspace_id)


@attack(
    "an answer that changes between check and connection (rebinding)",
    protection="the checked addresses are the ones connected to",
    where="dispatcher/http/dial.py",
    off=lambda patch: patch.setattr(dial, "find_addresses", _check_then_look_up_again),
)
async def rebinding(_: Path) -> bool:
    """Answer with an allowed address first and with one inside at once afterwards."""
    async with serving_names(rebind_example=[["127.0.0.1"], [INSIDE]]) as names:
        names.ttl = 0
        async with serving(repeat(OK), host=INSIDE) as inside:
            await _ask(make_request(inside.url_for("rebind.example")), names.address)
            return inside.connections > 0


@attack(
    "a public address of the operator's own",
    protection="`DISPATCHER_FORBIDDEN_NETWORKS`",
    where="dispatcher/core/addresses.py",
    off=lambda patch: patch.setattr(AddressPolicy, "_is_closed", lambda _, __: False),
)
async def own_public_address(_: Path) -> bool:
    """Reach an address that the rules allow and the operator has closed."""
    closed = dataclasses.replace(OUTSIDE, forbidden_networks=(IPv4Network("127.0.0.1/32"),))
    async with serving(repeat(OK)) as inside:
        await _ask(make_request(inside.url), policy=closed)
        return inside.connections > 0


@attack(
    "a private literal through the egress proxy",
    protection="the URL is checked before the proxy is asked",
    where="dispatcher/http/dial.py",
    off=lambda patch: patch.setattr(dial, "check_target", lambda _, __: None),
)
async def literal_through_the_proxy(_: Path) -> bool:
    """Let the proxy connect to 127.0.0.2."""
    async with proxying() as through, serving(repeat(OK), host=INSIDE) as inside:
        await _ask(make_request(inside.url_for(INSIDE)), egress_proxy=f"http://127.0.0.1:{through.port}")
        return inside.connections > 0


# TLS.


def _strict_but(**changes: object) -> Off:
    def off(patch: pytest.MonkeyPatch) -> None:
        def make(ca_bundle: Path | None = None) -> ssl.SSLContext:
            context = make_strict_context()
            for name, value in changes.items():
                setattr(context, name, value)
            if ca_bundle is not None:
                context.load_verify_locations(cafile=ca_bundle)
            return context

        patch.setattr(client_tls, "make_context", make)

    return off


async def _gets_the_request(context: ssl.SSLContext, bundle: Path | None) -> bool:
    async with serving(repeat(OK), tls=context) as endpoint:
        policy = AddressPolicy(allowed_networks=(IPv4Network("127.0.0.0/8"),))
        async with serving_names(hook_example=["127.0.0.1"]) as names:
            await _ask(make_request(endpoint.url_for("hook.example")), names.address, policy=policy, ca_bundle=bundle)
        return bool(endpoint.requests)


@attack(
    "an endpoint with a certificate of its own making",
    protection="certificates are verified; nothing switches that off",
    where="dispatcher/http/tls.py",
    off=_strict_but(check_hostname=False, verify_mode=ssl.CERT_NONE),
)
async def self_made_certificate(folder: Path) -> bool:
    """Get the request with a certificate that signs itself."""
    return await _gets_the_request(self_signed("hook.example", folder), None)


@attack(
    "an endpoint with another host's certificate",
    protection="the name in the certificate is the URL's host",
    where="dispatcher/http/tls.py",
    off=_strict_but(check_hostname=False),
)
async def other_name(folder: Path) -> bool:
    """Get the request with a valid certificate for another name."""
    authority = Authority(folder)
    return await _gets_the_request(authority.context("other.example"), authority.bundle)


@attack(
    "a certificate that only calls itself by the host's name",
    protection="a common name is no host name",
    where="dispatcher/http/tls.py",
    off=_strict_but(hostname_checks_common_name=True),
)
async def common_name(folder: Path) -> bool:
    """Get the request with the name in the subject alone."""
    authority = Authority(folder)
    return await _gets_the_request(authority.context(common_name="hook.example"), authority.bundle)


def _lax_version(patch: pytest.MonkeyPatch) -> None:
    def make(ca_bundle: Path | None = None) -> ssl.SSLContext:
        context = make_strict_context()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.load_verify_locations(cafile=ca_bundle)
        return context

    patch.setattr(client_tls, "make_context", make)


@attack(
    "an endpoint, or who stands before it, that insists on TLS 1.1",
    protection="TLS 1.2 is the lowest",
    where="dispatcher/http/tls.py",
    off=_lax_version,
)
async def old_version(folder: Path) -> bool:
    """Get the request over TLS 1.1."""
    authority = Authority(folder)
    context = authority.context("hook.example")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    policy = AddressPolicy(allowed_networks=(IPv4Network("127.0.0.0/8"),))
    with serving_in_a_thread(context) as (port, requests):
        async with serving_names(hook_example=["127.0.0.1"]) as names:
            request = make_request(f"https://hook.example:{port}/")
            await _ask(request, names.address, policy=policy, ca_bundle=authority.bundle)
    return bool(requests)


def _one_pool_for_all(patch: pytest.MonkeyPatch) -> None:
    take, make = pool.Pool.take, sender.Connection
    patch.setattr(pool.Pool, "take", lambda self, key, now: take(self, (*key[:3], None), now))
    patch.setattr(sender, "Connection", lambda key, *others, **more: make((*key[:3], None), *others, **more))


@attack(
    "a request over a connection with another tenant's client certificate",
    protection="connections are kept by workspace, webhook and certificate",
    where="dispatcher/http/pool.py",
    off=_one_pool_for_all,
)
async def borrowed_certificate(folder: Path) -> bool:
    """Send as b and be taken for a."""
    authority, seen = Authority(folder), []

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            seen.append(visit.client_name)
            visit.send(OK)

    context = authority.context("127.0.0.1")
    CLIENTS.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    made = Sender(OUTSIDE, ca_bundle=authority.bundle)
    async with serving(script, tls=context) as endpoint:
        for name in "ab":
            leaf = CLIENTS.issue_cert(common_name=name)
            client = ClientCertificate(name, leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())
            await made.exchange(dataclasses.replace(make_request(endpoint.url), client=client))
        await made.close()
    return seen == ["a", "a"]


# What comes back.


async def _held_by(piece: bytes, head: bytes = b"") -> bool:
    """Say whether an endpoint that never ends its answer was read for as long as it liked."""
    received, original = [0], Connection.data_received

    def count(self: Connection, data: bytes) -> None:
        received[0] += len(data)
        original(self, data)

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(head)
        while True:
            visit.send(piece)
            await visit.writer.drain()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "data_received", count)
        async with serving(script) as endpoint:
            await _ask(make_request(endpoint.url, timeout_seconds=2))
    return received[0] > MANY_BYTES


@attack(
    "headers without end",
    protection="64 KiB, informational answers included",
    where="dispatcher/http/connection.py",
    off=lambda patch: patch.setattr(connection, "MAX_HEAD_BYTES", 2**40),
)
async def endless_headers(_: Path) -> bool:
    """Send header lines for ever."""
    return await _held_by(b"X: y\r\n" * 2000, b"HTTP/1.1 200 OK\r\n")


@attack(
    "informational answers without end",
    protection="at most 32, within the 64 KiB",
    where="dispatcher/http/connection.py",
    off=lambda patch: (
        patch.setattr(connection, "MAX_HEAD_BYTES", 2**40),
        patch.setattr(connection, "MAX_INTERIM_RESPONSES", 2**40),
    ),
)
async def endless_interim(_: Path) -> bool:
    """Send 100 Continue for ever."""
    return await _held_by(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)


@attack(
    "a body without end",
    protection="4 KiB are kept, 64 KiB more are read, in at most a second",
    where="dispatcher/http/connection.py",
    off=lambda patch: patch.setattr(connection, "_MAX_BODY_BYTES", 2**40),
)
async def endless_body(_: Path) -> bool:
    """Send a body for ever."""
    return await _held_by(b"x" * 16_384, b"HTTP/1.1 200 OK\r\n\r\n")


@attack(
    "trailers without end",
    protection="they count as body",
    where="dispatcher/http/connection.py",
    off=lambda patch: patch.setattr(connection, "_MAX_BODY_BYTES", 2**40),
)
async def endless_trailers(_: Path) -> bool:
    """End the chunks and go on."""
    return await _held_by(b"X: y\r\n" * 2000, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")


def _deadline_by_piece(patch: pytest.MonkeyPatch) -> None:
    original = Connection.data_received

    def renew(self: Connection, data: bytes) -> None:
        self._started = self._clock()
        self._deadline = self._started + self._request.timeout_seconds
        self._arm(self._deadline)
        original(self, data)

    patch.setattr(Connection, "data_received", renew)


@attack(
    "an answer a byte at a time",
    protection="one deadline to the complete headers, not one a read",
    where="dispatcher/http/connection.py",
    off=_deadline_by_piece,
)
async def drip(_: Path) -> bool:
    """Hold a request for longer than its timeout and still have it succeed."""

    async def script(visit: Visit) -> None:
        await visit.request()
        for part in (b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 8, b"Content-Length: 0\r\n\r\n"):
            visit.send(part)
            await asyncio.sleep(0.1)

    async with serving(script) as endpoint:
        answer = await _ask(make_request(endpoint.url, timeout_seconds=0.5))
    return answer.status == 200


def _keep_what_nobody_asked_for(patch: pytest.MonkeyPatch) -> None:
    received, started, kept = Connection.data_received, Connection.start, {}

    def stash(self: Connection, data: bytes) -> None:
        if self._state == connection._IDLE:
            kept[self] = kept.get(self, b"") + data
        else:
            received(self, data)

    def start(self: Connection, *request: object) -> None:
        started(self, *request)
        if self in kept:
            received(self, kept.pop(self))

    patch.setattr(Connection, "data_received", stash)
    patch.setattr(Connection, "start", start)


@attack(
    "an answer laid out for somebody else's next request (response splitting)",
    protection="bytes that nobody asked for close the connection",
    where="dispatcher/http/connection.py",
    off=_keep_what_nobody_asked_for,
)
async def answer_in_advance(_: Path) -> bool:
    """Have a second request meet an answer that was sent before it."""
    poked = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await asyncio.sleep(0.05)
        visit.send(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        await visit.writer.drain()
        poked.set()
        await visit.request()
        visit.send(OK)
        await visit.until_closed()

    made = Sender(OUTSIDE)
    async with serving(script) as endpoint:
        await made.exchange(make_request(endpoint.url))
        await poked.wait()
        await asyncio.sleep(0.05)
        answer = await made.exchange(make_request(endpoint.url))
        await made.close()
    return answer.status == 410


@attack(
    "a proxy's answer without end",
    protection="16 KiB",
    where="dispatcher/http/proxy.py",
    off=lambda patch: patch.setattr(proxy, "MAX_ANSWER_BYTES", 2**40),
)
async def endless_proxy(_: Path) -> bool:
    """Hold a request until its deadline with a proxy's headers."""

    async def script(visit: Visit) -> None:
        await visit.head()
        while True:
            visit.send(b"X: y\r\n")
            await asyncio.sleep(0)
            if visit.writer.is_closing():
                return

    async with serving(script) as endless:
        asked = make_request("http://127.0.0.1:8080/", timeout_seconds=2)
        answer = await _ask(asked, egress_proxy=f"http://127.0.0.1:{endless.port}")
    return answer.failure is SendFailure.TIMEOUT


# What goes out.


def _template(**fields: object) -> RequestTemplate:
    keyring = Keyring([bytes(32)])

    def seal(text: str, purpose: SealPurpose) -> bytes:
        return keyring.seal(text.encode(), nonce=bytes(12), aad=binding("acme", "wh_1", purpose))

    secret = SealedSecret(seal("whsec_" + "QUFB" * 8, SealPurpose.SIGNING_SECRET))
    url = parse_endpoint_url("http://127.0.0.1/")
    return RequestTemplate(Subscription("wh_1", "acme", url, ("*",), (secret,), **fields), keyring, "Test/1.0")


@attack(
    "a line break in a header's value",
    protection="refused at the API, and again where requests are put together",
    where="dispatcher/core/rendering.py",
    off=lambda patch: patch.setattr(rendering, "_ENDS_A_LINE", re.compile("(?!)")),
)
async def header_injection(_: Path) -> bool:
    """Get a header of one's own, and with it a second request, into a stored webhook's requests."""
    try:
        head = _template(headers=(("X-A", "1\r\nX-Evil: 1"),))._head
    except ValueError:
        return False
    return b"\r\nX-Evil: 1\r\n" in head


@attack(
    "a blank in the URL that ends the request line early",
    protection="URLs are printable ASCII without blanks",
    where="dispatcher/core/urls.py",
    off=lambda patch: patch.setattr(urls, "_UNSAFE", re.compile("(?!)")),
)
async def request_line_injection(_: Path) -> bool:
    """Get HTTP/1.0 and a header into the request line."""
    try:
        parsed = parse_endpoint_url("http://127.0.0.1/a HTTP/1.0")
    except InvalidUrlError:
        return False
    return parsed.target == "/a HTTP/1.0"


# What is shared.


def _drop_whose_came_first(patch: pytest.MonkeyPatch) -> None:
    def drop(self: Pool, _own: object) -> None:
        victim = next(stack for stack in self._stacks.values() if stack)
        self.idle -= 1
        victim.pop(0).drop()

    patch.setattr(Pool, "_make_room", drop)


class _Idle:
    def __init__(self, host: str) -> None:
        self.key = ("https", host, 443, None)
        self.opened_at = self.idle_since = 1000.0
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


@attack(
    "so many idle connections that the neighbours' are closed",
    protection="who has more than a share makes room",
    where="dispatcher/http/pool.py",
    off=_drop_whose_came_first,
)
async def idle_flood(_: Path) -> bool:
    """Push a neighbour's connection out of the pool."""
    made: Pool[_Idle] = Pool(clock=lambda: 1000.0, max_idle=50)
    neighbour = _Idle("neighbour.example")
    made.put(neighbour, 1000)
    for _ in range(500):
        made.put(_Idle("flood.example"), 1000)
    dropped = neighbour.dropped
    made.close()
    return dropped
