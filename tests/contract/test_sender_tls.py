"""TLS to endpoints, over real sockets."""

import asyncio
import ssl

import pytest

from dispatcher.core.exchange import SendFailure
from dispatcher.http.sender import Sender
from tests.contract.endpoints import (
    LOOPBACK,
    OK,
    Authority,
    Visit,
    make_request,
    repeat,
    self_signed,
    serving,
    serving_in_a_thread,
    wait_until,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def sender(authority):
    made = Sender(LOOPBACK, ca_bundle=authority.bundle)
    yield made
    await made.close()


async def test_a_verified_endpoint_is_reached_and_kept(sender, authority):
    """A certificate of a trusted authority for the right name works, and the connection is used again."""
    async with serving(repeat(OK), tls=authority.context("localhost")) as endpoint:
        for _ in range(3):
            response = await sender.exchange(make_request(endpoint.url_for("localhost")))
            assert (response.status, response.failure, response.body) == (200, None, b"OK")
        assert endpoint.connections == 1


async def test_an_address_in_the_certificate_is_verified(sender, authority):
    """An IP literal is matched against the certificate's addresses."""
    async with serving(repeat(OK), tls=authority.context("127.0.0.1")) as endpoint:
        assert (await sender.exchange(make_request(endpoint.url))).status == 200


async def test_the_servers_name_is_sent(sender, authority):
    """SNI carries the URL's host, without a trailing dot."""
    context, names = authority.context("localhost"), []
    context.sni_callback = lambda _, name, __: names.append(name)
    async with serving(repeat(OK), tls=context) as endpoint:
        assert (await sender.exchange(make_request(endpoint.url_for("localhost.")))).status == 200
    assert names == ["localhost"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong name", "ostname mismatch"),
        ("wrong address", "IP address mismatch"),
        ("expired", "certificate has expired"),
        ("unknown authority", "unable to get local issuer certificate"),
        ("signed by itself", "self-signed certificate"),
        ("name in the subject only", "ostname mismatch"),
    ],
)
async def test_a_certificate_that_does_not_verify_fails_in_words(sender, authority, tmp_path, case, words):
    """The reason for a refused certificate is told, and the request never leaves."""
    context, host = {
        "wrong name": (authority.context("other.example"), "localhost"),
        "wrong address": (authority.context("localhost"), "127.0.0.1"),
        "expired": (authority.context("localhost", expired=True), "localhost"),
        "unknown authority": (Authority(tmp_path).context("localhost"), "localhost"),
        "signed by itself": (self_signed("localhost", tmp_path), "localhost"),
        "name in the subject only": (authority.context(common_name="localhost"), "localhost"),
    }[case]
    async with serving(repeat(OK), tls=context) as endpoint:
        response = await sender.exchange(make_request(endpoint.url_for(host)))
        assert (response.status, response.failure) == (0, SendFailure.TLS)
        assert words in response.detail
        assert endpoint.requests == []
    assert sender.stats().open == 0


async def test_the_systems_authorities_do_not_trust_a_private_one(authority):
    """Without a bundle of one's own, a private authority is not trusted."""
    sender = Sender(LOOPBACK)
    async with serving(repeat(OK), tls=authority.context("localhost")) as endpoint:
        response = await sender.exchange(make_request(endpoint.url_for("localhost")))
    await sender.close()
    assert response.failure is SendFailure.TLS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
async def test_old_tls_versions_are_refused(sender, authority, version):
    """An endpoint that speaks TLS 1.0 or 1.1 alone gets no request, and the failure says what is needed."""
    context = authority.context("localhost")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with serving_in_a_thread(context) as (port, requests):
        response = await sender.exchange(make_request(f"https://localhost:{port}/"))
        assert response.failure is SendFailure.TLS
        assert response.detail == "the endpoint offers no TLS version from 1.2 up"
        assert requests == []
        # Without the lowest version in the way the same endpoint gets it.
        sender._dialer._contexts.plain.set_ciphers("DEFAULT:@SECLEVEL=0")
        sender._dialer._contexts.plain.minimum_version = version
        assert (await sender.exchange(make_request(f"https://localhost:{port}/"))).status == 200
        assert len(requests) == 1


async def test_an_alert_about_the_version_is_told_in_words(sender):
    """An endpoint that refuses the offered TLS versions makes a failure that says which are needed."""

    async def script(visit: Visit) -> None:
        await visit.reader.read(100)
        visit.send(bytes.fromhex("15 0302 0002 02 46"))  # a fatal protocol_version alert, as TLS 1.1 sends it
        await visit.until_closed()

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(f"https://localhost:{endpoint.port}/"))
    assert response.failure is SendFailure.TLS
    assert "TLS version from 1.2" in response.detail


async def test_tls_1_2_is_accepted(sender, authority):
    """TLS 1.2 alone is enough."""
    context = authority.context("localhost")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(repeat(OK), tls=context) as endpoint:
        assert (await sender.exchange(make_request(endpoint.url_for("localhost")))).status == 200


async def test_plain_http_on_a_tls_url_fails_in_words(sender):
    """An https URL of a port that speaks plain HTTP fails and says so."""

    async def script(visit: Visit) -> None:
        await visit.reader.read(100)
        visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await visit.until_closed()

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(f"https://localhost:{endpoint.port}/"))
    assert response.failure is SendFailure.TLS
    assert "doesn't speak TLS" in response.detail


async def test_a_close_during_the_handshake_fails(sender):
    """An endpoint that closes during the handshake is a TLS failure."""

    async def script(visit: Visit) -> None:
        await visit.reader.read(100)

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(f"https://localhost:{endpoint.port}/"))
    assert response.failure is SendFailure.TLS


async def test_a_silent_handshake_fails_at_the_deadline(sender):
    """An endpoint that never answers the handshake fails at the deadline, and the connection is closed."""

    async def script(visit: Visit) -> None:
        await visit.until_closed()

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(f"https://localhost:{endpoint.port}/", timeout_seconds=0.3))
        assert response.failure is SendFailure.TIMEOUT
        assert "TLS handshake" in response.detail
        await wait_until(lambda: endpoint.open == 0, "the connection is closed")


async def test_a_connection_closed_while_idle_is_replaced(sender, authority):
    """A TLS connection that the server ends while idle leaves the pool, and the next request has a new one."""
    finish = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await finish.wait()

    async with serving(script, tls=authority.context("localhost")) as endpoint:
        url = endpoint.url_for("localhost")
        assert (await sender.exchange(make_request(url))).status == 200
        finish.set()
        await wait_until(lambda: sender.stats().open == 0, "the connection has left the pool")
        assert (await sender.exchange(make_request(url))).status == 200
        assert endpoint.connections == 2


async def test_a_large_body_goes_through_tls(sender, authority):
    """A mebibyte goes through TLS whole."""
    async with serving(repeat(OK), tls=authority.context("localhost")) as endpoint:
        response = await sender.exchange(make_request(endpoint.url_for("localhost"), b"r" * 1_048_576))
        assert response.status == 200
        assert len(endpoint.requests[0][1]) == 1_048_576
