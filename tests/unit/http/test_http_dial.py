"""Which of several addresses a connection is made to."""

import asyncio

import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import NoConnectionError
from dispatcher.core.exchange import SendFailure
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http import dial
from dispatcher.http.client_tls import TlsContexts
from dispatcher.http.dial import Dialer, Dialling

URL = parse_endpoint_url("https://example.com/")


class Names:
    """A resolver that knows one answer."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, _name, _workspace_id):
        """Return the answer."""
        return self.addresses


class Sockets:
    """Stands for the network: an address hangs, fails with an error or connects."""

    def __init__(self, outcomes) -> None:
        self.outcomes = outcomes
        self.tried = []

    async def connect(self, address, port):
        """Do what the address does."""
        self.tried.append((address, port))
        outcome = self.outcomes.get(address)
        if outcome == "hang":
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return f"socket to {address}"


def make_dialer(monkeypatch, sockets, *addresses):
    dialer = Dialer(AddressPolicy(), Names(*addresses), TlsContexts(), proxy=None, make_connection=lambda _: None)
    monkeypatch.setattr(dialer, "_connect", sockets.connect)
    monkeypatch.setattr(dial, "ADDRESS_SECONDS", 0.02)
    return dialer


async def open_socket(dialer):
    return await dialer._open_socket(Dialling(URL, "ws"), dialer._clock() + 60)


async def test_a_hanging_address_does_not_use_up_the_time(monkeypatch):
    """An address that never answers is left after its share, and the next one is used."""
    sockets = Sockets({"1.1.1.1": "hang"})
    dialer = make_dialer(monkeypatch, sockets, "1.1.1.1", "1.2.2.2")
    assert await open_socket(dialer) == "socket to 1.2.2.2"
    assert sockets.tried == [("1.1.1.1", 443), ("1.2.2.2", 443)]


async def test_the_last_addresss_error_is_told(monkeypatch):
    """Where every address fails, the last failure is the request's, in words without the address."""
    sockets = Sockets({"1.1.1.1": OSError(101, "x"), "1.2.2.2": ConnectionRefusedError(111, "x")})
    dialer = make_dialer(monkeypatch, sockets, "1.1.1.1", "1.2.2.2")
    with pytest.raises(NoConnectionError, match=r"^connection refused$") as caught:
        await open_socket(dialer)
    assert caught.value.failure == SendFailure.CONNECT


async def test_a_bounded_number_of_addresses_is_tried(monkeypatch):
    """A name with very many addresses doesn't make very many connections."""
    addresses = [f"1.{number}.{number}.{number}" for number in range(1, 20)]
    sockets = Sockets(dict.fromkeys(addresses, OSError(113, "x")))
    dialer = make_dialer(monkeypatch, sockets, *addresses)
    with pytest.raises(NoConnectionError):
        await open_socket(dialer)
    assert len(sockets.tried) == dial.MAX_ADDRESSES
