"""Free ports on the loopback address, where clients don't borrow them."""

import secrets
import socket
from collections.abc import Collection
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 20_000
_EPHEMERAL_START = 32_768
_TRIES = 200


def is_free(port: int) -> bool:
    """Say whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # What a server sets too: closed connections that the kernel still remembers don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def accepts(port: int, *, timeout_seconds: float = 1.0) -> bool:
    """Say whether something on the loopback address takes a connection on this port."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


def choose(*, kept: int | None = None, avoid: Collection[int] = ()) -> int:
    """Choose a free port: the kept one where it still is, else one drawn by chance.

    Ports that the system hands to outgoing connections are left out: while a server is down, a client that
    keeps trying such a port can end up connected to itself, and the server then can't come back.

    Args:
        kept: The port of the last run.
        avoid: Ports that are spoken for, though nobody listens yet.

    Raises:
        OSError: no free port was found.
    """
    if kept is not None and kept not in avoid and is_free(kept):
        return kept
    highest = _first_ephemeral()
    for _ in range(_TRIES):
        port = _LOWEST + secrets.randbelow(highest - _LOWEST)
        if port not in avoid and is_free(port):
            return port
    raise OSError(f"no free port between {_LOWEST} and {highest}")


def _first_ephemeral() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_START
    return first if first > _LOWEST + 1000 else _EPHEMERAL_START
