"""The egress proxy: CONNECT tunnels through a small real one."""

import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.exchange import SendFailure
from dispatcher.http.names import Resolver
from dispatcher.http.proxy import MAX_ANSWER_BYTES
from dispatcher.http.sender import Sender
from tests.contract.endpoints import (
    LOOPBACK,
    OK,
    Authority,
    Visit,
    get_free_port,
    make_request,
    proxying,
    repeat,
    serving,
    serving_names,
    wait_until,
)

STRICT = AddressPolicy(allow_http=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("secure", [False, True])
async def test_requests_go_through_a_tunnel_that_is_kept(authority, secure):
    """Plain and TLS requests pass one tunnel after each other; the proxy resolves the name."""
    tls = authority.context("hook.example.com") if secure else None
    async with proxying() as proxy, serving(repeat(OK), tls=tls) as endpoint:
        proxy.hosts["hook.example.com"] = "127.0.0.1"
        sender = Sender(STRICT, ca_bundle=authority.bundle, egress_proxy=f"http://127.0.0.1:{proxy.port}")
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url_for("hook.example.com")))).status == 200
        await sender.close()
        assert proxy.targets == [f"hook.example.com:{endpoint.port}"]
        assert b"Proxy-Authorization" not in proxy.heads[0]


async def test_credentials_are_sent_to_the_proxy_alone():
    """The setting's user and password, percent-decoded, go to the proxy and never to the endpoint."""
    async with proxying() as proxy, serving(repeat(OK)) as endpoint:
        sender = Sender(LOOPBACK, egress_proxy=f"http://me:p%40ss@localhost:{proxy.port}")
        assert (await sender.exchange(make_request(endpoint.url))).status == 200
        await sender.close()
        assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in proxy.heads[0]
        assert b"Authorization" not in endpoint.requests[0][0]


async def test_the_certificate_behind_the_proxy_is_verified(authority):
    """TLS is with the endpoint, not with the proxy: a wrong name is refused."""
    async with proxying() as proxy, serving(repeat(OK), tls=authority.context("other.example.com")) as endpoint:
        proxy.hosts["hook.example.com"] = "127.0.0.1"
        sender = Sender(STRICT, ca_bundle=authority.bundle, egress_proxy=f"http://127.0.0.1:{proxy.port}")
        response = await sender.exchange(make_request(endpoint.url_for("hook.example.com")))
        await sender.close()
        assert response.failure is SendFailure.TLS


@pytest.mark.parametrize("host", ["10.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"])
async def test_literals_are_guarded_before_the_proxy_is_asked(host):
    """A forbidden literal is refused here; the proxy never hears of it."""
    async with proxying() as proxy:
        sender = Sender(STRICT, egress_proxy=f"http://127.0.0.1:{proxy.port}")
        response = await sender.exchange(make_request(f"http://{host}:8080/"))
        await sender.close()
        assert response.failure is SendFailure.FORBIDDEN_ADDRESS
        assert proxy.targets == []


async def test_what_a_name_resolves_to_is_the_proxys_to_refuse():
    """Behind a proxy a name that leads inside is connected to, unless the proxy itself refuses: that isn't promised.

    Nothing here resolves the name, so that the guard has no address to check; the same name without a proxy is refused.
    """
    async with serving_names(**{"inside.example.com": ["127.0.0.1"]}) as names, serving(repeat(OK)) as inside:
        request = make_request(inside.url_for("inside.example.com"))
        async with proxying() as proxy:
            proxy.hosts["inside.example.com"] = "127.0.0.1"
            careless = Sender(STRICT, egress_proxy=f"http://127.0.0.1:{proxy.port}")
            assert (await careless.exchange(request)).status == 200
            await careless.close()
        assert (names.queries, inside.connections) == ([], 1)
        async with proxying(answer=b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
            careful = Sender(STRICT, egress_proxy=f"http://127.0.0.1:{proxy.port}")
            refused = await careful.exchange(request)
            await careful.close()
        assert (refused.failure, "refused the tunnel with status 403" in refused.detail) == (SendFailure.CONNECT, True)
        alone = Sender(STRICT, resolver=Resolver(nameservers=[names.address]))
        assert (await alone.exchange(request)).failure is SendFailure.FORBIDDEN_ADDRESS
        await alone.close()
        assert inside.connections == 1


@pytest.mark.parametrize(
    ("answer", "failure", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", SendFailure.CONNECT, "status 403"),
        (b"SSH-2.0-hello\r\n\r\n", SendFailure.CONNECT, "no readable answer"),
        (b"", SendFailure.CONNECT, "closed"),
    ],
)
async def test_a_proxy_that_refuses_fails_in_words(answer, failure, words):
    """A refusal, garbage and a bare close of the proxy are failures that name the proxy."""
    async with proxying(answer=answer) as proxy:
        sender = Sender(LOOPBACK, egress_proxy=f"http://127.0.0.1:{proxy.port}")
        response = await sender.exchange(make_request("http://127.0.0.1:8080/"))
        await sender.close()
        assert response.failure is failure
        assert words in response.detail
        assert "proxy" in response.detail


async def test_a_proxys_endless_headers_fail_at_their_bound():
    """A proxy whose answer never ends is given up long before the deadline."""

    async def script(visit: Visit) -> None:
        await visit.head()
        visit.send(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2 * MAX_ANSWER_BYTES)
        await visit.until_closed()

    async with serving(script) as endless:
        sender = Sender(LOOPBACK, egress_proxy=f"http://127.0.0.1:{endless.port}")
        response = await sender.exchange(make_request("http://127.0.0.1:8080/", timeout_seconds=10))
        await sender.close()
        assert (response.failure, "no readable answer" in response.detail) == (SendFailure.CONNECT, True)


async def test_a_proxy_that_is_not_there_fails_in_words():
    """A refused connection to the proxy says that it was the proxy's."""
    sender = Sender(LOOPBACK, egress_proxy=f"http://127.0.0.1:{get_free_port()}")
    response = await sender.exchange(make_request("http://127.0.0.1:8080/"))
    await sender.close()
    assert (response.failure, response.detail) == (SendFailure.CONNECT, "egress proxy: connection refused")


async def test_a_silent_proxy_fails_at_the_deadline():
    """A proxy that never answers costs the request's own time, and its connection is closed."""

    async def script(visit: Visit) -> None:
        await visit.until_closed()

    async with serving(script) as silent:
        sender = Sender(LOOPBACK, egress_proxy=f"http://127.0.0.1:{silent.port}")
        response = await sender.exchange(make_request("http://127.0.0.1:8080/", timeout_seconds=0.3))
        assert response.failure is SendFailure.TIMEOUT
        assert "proxy" in response.detail
        await wait_until(lambda: silent.open == 0, "the connection is closed")
        await sender.close()


async def test_the_environments_proxy_is_ignored(monkeypatch):
    """Only the setting counts: proxy variables of the environment change nothing."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{get_free_port()}")
    sender = Sender(LOOPBACK)
    async with serving(repeat(OK)) as endpoint:
        assert (await sender.exchange(make_request(endpoint.url))).status == 200
    await sender.close()
