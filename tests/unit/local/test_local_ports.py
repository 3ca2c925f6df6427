"""Ports are kept while they are free, and never drawn where clients borrow theirs."""

import socket

import pytest

from dispatcher.local import ports


@pytest.fixture
def taken():
    with socket.create_server((ports.HOST, 0)) as server:
        yield server.getsockname()[1]


def test_taken_port_is_neither_free_nor_kept(taken: int) -> None:
    """A port that somebody listens on is replaced."""
    assert not ports.is_free(taken)
    assert ports.accepts(taken)
    assert ports.choose(kept=taken) != taken


def test_kept_port_stays_while_it_is_free() -> None:
    """The last run's port is chosen again, also right after a server on it has closed its connections."""
    port = ports.choose()
    with socket.create_server((ports.HOST, port)) as server, socket.create_connection((ports.HOST, port)):
        connection, _ = server.accept()
        connection.close()  # the side that closes first is the one the kernel remembers
    assert ports.choose(kept=port) == port
    assert ports.choose(kept=port, avoid={port}) != port
    assert not ports.accepts(port)


def test_drawn_ports_are_no_ephemeral_ones() -> None:
    """A drawn port is never one that the system hands to outgoing connections."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:  # noqa: PTH123
        first = int(file.read().split()[0])
    assert all(20_000 <= ports.choose() < max(first, 21_000) for _ in range(20))


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every port is taken, the search ends."""
    monkeypatch.setattr(ports, "is_free", lambda _: False)
    with pytest.raises(OSError, match="no free port between"):
        ports.choose()
