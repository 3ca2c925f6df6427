"""The sender's own part, with a dialer that reaches nothing."""

import asyncio
import ssl
from ipaddress import IPv4Network

import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import NoConnectionError, SettingsError
from dispatcher.core.exchange import Request, SendFailure
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http.dial_queue import DIALS_A_TURN
from dispatcher.http.pool import make_key
from dispatcher.http.sender import Sender

POLICY = AddressPolicy(allow_http=True, allowed_networks=(IPv4Network("127.0.0.0/8"),))
REQUEST = Request(parse_endpoint_url("http://127.0.0.1:9/"), b"POST / HTTP/1.1\r\n\r\n", b"", 10, "ws")


@pytest.fixture
async def sender():
    made = Sender(POLICY)
    yield made
    await made.close()


async def test_a_connection_that_ended_before_its_request_fails_it(sender, monkeypatch):
    """A connection that ends between the handshake and its first request is a failure, not a fault."""

    async def dial(_dialling, _deadline):
        return sender._make_connection(make_key(REQUEST.url))

    monkeypatch.setattr(sender._dialer, "dial", dial)
    assert (await sender.exchange(REQUEST)).failure is SendFailure.CLOSED


async def test_a_tls_alert_before_the_first_request_is_told(sender, monkeypatch):
    """An endpoint that refuses the client certificate right after the handshake is told of in its own words."""

    async def dial(_dialling, _deadline):
        connection = sender._make_connection(make_key(REQUEST.url))
        alert = ssl.SSLError(1, "x")
        alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        connection.connection_lost(alert)
        return connection

    monkeypatch.setattr(sender._dialer, "dial", dial)
    response = await sender.exchange(REQUEST)
    assert response.failure is SendFailure.TLS
    assert "wants a client certificate" in response.detail


async def test_an_unexpected_fault_while_connecting_is_an_outcome(sender, monkeypatch):
    """A fault in the dialling is reported to the loop and still ends the request."""

    async def dial(_dialling, _deadline):
        raise ZeroDivisionError

    loop, reported = asyncio.get_running_loop(), []
    monkeypatch.setattr(sender._dialer, "dial", dial)
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    try:
        response = await sender.exchange(REQUEST)
    finally:
        loop.set_exception_handler(None)
    assert response.failure is SendFailure.CONNECT
    assert [type(one) for one in reported] == [ZeroDivisionError]


async def test_closing_before_the_dialling_began_aborts(monkeypatch):
    """A request whose dialling has not had its first turn when the sender closes is aborted, not lost."""
    sender, answers = Sender(POLICY), []
    sender.send(REQUEST, answers.append)
    await sender.close()
    assert [one.failure for one in answers] == [SendFailure.ABORTED]
    sender.send(REQUEST, answers.append)
    await asyncio.sleep(0)
    assert [one.failure for one in answers] == [SendFailure.ABORTED] * 2


async def test_closing_aborts_what_waits_for_its_turn_to_dial():
    """Each of many requests that came at once is counted, and told once that the sender was closed."""
    sender, answers = Sender(POLICY), []
    for _ in range(50):
        sender.send(REQUEST, answers.append)
    assert (sender.stats().connecting, sender.stats().in_flight) == (50, 50)
    await sender.close()
    await asyncio.sleep(0)
    assert [one.failure for one in answers] == [SendFailure.ABORTED] * 50
    assert sender.stats().connecting == 0


async def test_the_wait_for_its_dial_is_not_the_endpoints(monkeypatch):
    """A request that waited for its turn has its whole time from then on, and its duration counts from there."""
    now = 0.0
    sender, answers, left = Sender(POLICY, clock=lambda: now), [], []

    async def dial(_dialling, deadline):
        left.append(deadline - now)
        raise NoConnectionError(SendFailure.CONNECT, "refused")

    monkeypatch.setattr(sender._dialer, "dial", dial)
    for _ in range(DIALS_A_TURN + 1):
        sender.send(REQUEST, answers.append)
    now = 100.0
    async with asyncio.timeout(20):
        while len(answers) <= DIALS_A_TURN:
            await asyncio.sleep(0)
    assert left[-1] == REQUEST.timeout_seconds
    assert answers[-1].duration_ms == 0
    await sender.close()


async def test_a_wrong_proxy_setting_is_told_at_once():
    """A proxy setting of another form is an error of the settings, not of the first delivery."""
    with pytest.raises(SettingsError):
        Sender(POLICY, egress_proxy="socks5://proxy:1080")
