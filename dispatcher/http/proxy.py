"""The egress proxy: its address, and the CONNECT conversation before a tunnel.

Source: RFC 9110 section 9.3.6 (CONNECT).
"""

import asyncio
import base64
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from dispatcher.core.errors import NoConnectionError, SettingsError
from dispatcher.core.exchange import SendFailure
from dispatcher.core.urls import EndpointUrl

MAX_ANSWER_BYTES = 16_384
"""How long the headers of a proxy's answer may be."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_CHUNK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class EgressProxy:
    """Where the proxy listens, and the credentials that it wants.

    Attributes:
        host: Name or IP literal, without brackets.
        port: 1 to 65535.
        authorization: The Proxy-Authorization header's value; empty where none is sent.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def parse_egress_proxy(text: str) -> EgressProxy:
    """Read the setting `http://[user:password@]host:port`.

    Raises:
        SettingsError: It has another form. The message doesn't repeat it, since it may hold a password.
    """
    problem = SettingsError(["DISPATCHER_EGRESS_PROXY: write http://[user:password@]host:port"])
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise problem from None
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme != "http" or not parts.hostname or not port or extra:
        raise problem
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return EgressProxy(parts.hostname, port, authorization)


async def open_tunnel(sock: socket.socket, proxy: EgressProxy, url: EndpointUrl) -> None:
    """Ask a proxy for a tunnel to a URL's host and port, over a connected, non-blocking socket.

    Afterwards the socket speaks to the endpoint. Nothing bounds the time: the caller does.

    Raises:
        NoConnectionError: The proxy refused, closed, or answered what can't be read.
        OSError: The connection to the proxy broke.
    """
    loop = asyncio.get_running_loop()
    host = f"[{url.host}]" if ":" in url.host else url.host
    lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        chunk = await loop.sock_recv(sock, _CHUNK_BYTES)
        answer += chunk
        if not chunk or len(answer) > MAX_ANSWER_BYTES:
            raise NoConnectionError(SendFailure.CONNECT, "the egress proxy closed or gave no readable answer")
    status = _STATUS_LINE.match(answer)
    if status is None:
        raise NoConnectionError(SendFailure.CONNECT, "the egress proxy gave no readable answer")
    if not status[1].startswith(b"2"):
        raise NoConnectionError(
            SendFailure.CONNECT, f"the egress proxy refused the tunnel with status {status[1].decode('ascii')}"
        )
    if not answer.endswith(b"\r\n\r\n"):
        raise NoConnectionError(SendFailure.PROTOCOL, "bytes came through the egress proxy before the request")
