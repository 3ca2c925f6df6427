"""Endpoints on the loopback that behave well, badly or not at all, and a name server of the same kind.

An endpoint is a script that is run for each connection:

    async def script(visit):
        await visit.request()
        visit.send(OK)

    async with serving(script) as endpoint:
        ...  # endpoint.url, endpoint.requests, endpoint.connections

Each script's connection is closed when it returns. `repeat(answer)` is the script of a plain keep-alive server.
"""

import asyncio
import datetime as dt
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.exchange import Request
from dispatcher.core.urls import parse_endpoint_url

LOOPBACK = AddressPolicy(allow_http=True, allowed_networks=(IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")))
"""What lets a sender reach these endpoints, and nothing else."""
LINGER_SECONDS = 5.0
"""How long an endpoint in a thread waits for each of its client's steps, the last of which is to close."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


@dataclass
class Endpoint:
    """A server that runs a script.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        scheme: `http` or `https`.
        requests: Each request's head and body, as received.
        connections: How many were accepted.
        open: How many are open.
    """

    port: int
    scheme: str = "http"
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        """Where the endpoint is reached by address."""
        return self.url_for("127.0.0.1")

    def url_for(self, host: str) -> str:
        """Return where the endpoint is reached by a name or another address."""
        return f"{self.scheme}://{host}:{self.port}/hook"


@dataclass
class Visit:
    """One connection of a client; `number` counts them from 1."""

    endpoint: Endpoint
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def client_name(self) -> str:
        """The common name in the client's certificate; empty where it showed none."""
        found = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if not found:
            return ""
        subject = x509.load_der_x509_certificate(found).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    async def request(self) -> tuple[bytes, bytes]:
        """Read and note one request; raises asyncio.IncompleteReadError where the client closes instead."""
        head = await self.head()
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await self.reader.readexactly(length)
        self.endpoint.requests.append((head, body))
        return head, body

    async def head(self) -> bytes:
        """Read one request's head and leave its body unread."""
        return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        """Write bytes; they go out at once."""
        self.writer.write(data)

    async def until_closed(self) -> None:
        """Wait until the client closes, reading what it still sends."""
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        """Close with a reset instead of an end of stream."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Visit], Awaitable[None]]


def repeat(answer: bytes) -> Script:
    """Return the script of a keep-alive server that always gives the same answer."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(answer)

    return script


def once(*parts: bytes) -> Script:
    """Return a script that answers the first request with these bytes, one write each, and closes."""

    async def script(visit: Visit) -> None:
        await visit.request()
        for part in parts:
            visit.send(part)
            await visit.writer.drain()

    return script


@asynccontextmanager
async def serving(
    script: Script, *, tls: ssl.SSLContext | None = None, port: int = 0, host: str = "127.0.0.1"
) -> AsyncIterator[Endpoint]:
    """Serve a script until the block ends; open connections are then cut."""
    endpoint = Endpoint(0, "https" if tls else "http")
    visits: set[asyncio.Task[None]] = set()

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.connections += 1
        endpoint.open += 1
        task = asyncio.current_task()
        visits.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
                await script(Visit(endpoint, endpoint.connections, reader, writer))
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            endpoint.open -= 1
            visits.discard(task)
            writer.close()

    server = await asyncio.start_server(visited, host, port, ssl=tls, limit=2**20, backlog=512)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
        for task in tuple(visits):
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


def make_request(url: str, body: bytes = b"{}", *, timeout_seconds: float = 10, workspace_id: str = "ws") -> Request:
    """Make a POST to a URL."""
    endpoint = parse_endpoint_url(url)
    head = f"POST {endpoint.target} HTTP/1.1\r\nHost: {endpoint.host_header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return Request(endpoint, head.encode("ascii"), body, timeout_seconds, workspace_id)


def get_free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Authority:
    """A certificate authority of one test run.

    Args:
        folder: Where its PEM file goes.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.bundle = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.bundle))

    def context(self, *names: str, expired: bool = False, common_name: str | None = None) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names or addresses."""
        ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=1) if expired else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, not_after=ended, common_name=common_name).configure_cert(context)
        return context


@contextmanager
def serving_in_a_thread(context: ssl.SSLContext) -> Iterator[tuple[int, list[bytes]]]:
    """Serve TLS from a thread, for asyncio's server cuts a failed handshake short of its alert; port and requests.

    It closes as careful servers do: it first reads to the end. Closed with bytes unread, a connection is reset, and a
    reset that comes before the client has written its request fails that write, so that the alert is never read.
    """
    requests: list[bytes] = []
    tunnels: list[ssl.SSLSocket] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            plain.settimeout(LINGER_SECONDS)
            with suppress(OSError), context.wrap_socket(plain, True, do_handshake_on_connect=False) as tunnel:
                tunnels.append(tunnel)
                with suppress(OSError):
                    tunnel.do_handshake()
                    requests.append(tunnel.recv(65_536))
                    tunnel.sendall(OK)
                tunnel.shutdown(socket.SHUT_WR)
                while tunnel.recv(65_536):
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1], requests
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        for tunnel in tunnels:
            # The client's end may be for the loop to close that waits here.
            with suppress(OSError):
                tunnel.shutdown(socket.SHUT_RDWR)
        thread.join()
        listening.close()


def self_signed(name: str, folder: Path) -> ssl.SSLContext:
    """Return a server's context with a certificate for a name that nobody but itself has signed."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    pem, path = serialization.Encoding.PEM, folder / "self-signed.pem"
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + builder.sign(key, hashes.SHA256()).public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class NameServer(asyncio.DatagramProtocol):
    """A name server over UDP.

    Attributes:
        addresses: Lower-case name to its IPv4 addresses; `None` never answers, a missing name doesn't exist. A
            list of lists is answered one after the other, the last one for ever.
        ttl: Seconds.
        queries: Each query for IPv4 addresses, by name.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, list[str] | list[list[str]] | None] = {}
        self.ttl = 300
        self.queries: list[str] = []
        self.port = 0

    @property
    def address(self) -> str:
        """`address:port`, as a resolver takes it."""
        return f"127.0.0.1:{self.port}"

    def connection_made(self, transport) -> None:
        """Note the port."""
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr) -> None:
        """Answer a query, or keep silent."""
        name, kind, question = _read_question(data)
        if kind == 1:
            self.queries.append(name)
        found = self.addresses.get(name, [])
        if found is None:
            return
        if found and isinstance(found[0], list):
            found = found.pop(0) if kind == 1 and len(found) > 1 else found[0]
        records = [_make_record(address, self.ttl) for address in found] if kind == 1 else []
        flags = 0x8180 if name in self.addresses else 0x8183
        head = data[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
        self._transport.sendto(head + question + b"".join(records), addr)


def _read_question(data: bytes) -> tuple[str, int, bytes]:
    end = data.index(b"\0", 12)
    labels, at = [], 12
    while at < end:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    kind = int.from_bytes(data[end + 1 : end + 3])
    return ".".join(labels).lower(), kind, data[12 : end + 5]


def _make_record(address: str, ttl: int) -> bytes:
    return b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, ttl, 4) + socket.inet_aton(address)


@asynccontextmanager
async def serving_names(**addresses: list[str] | None) -> AsyncIterator[NameServer]:
    """Serve names until the block ends; `_` in a keyword stands for a dot."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    server.addresses.update({name.replace("_", "."): found for name, found in addresses.items()})
    try:
        yield server
    finally:
        transport.close()


@dataclass
class Proxy:
    """A CONNECT proxy.

    Attributes:
        port: Where it listens.
        targets: What tunnels were asked for, `host:port`.
        heads: Each CONNECT request's head.
        hosts: Name to the address that it connects to instead.
    """

    port: int
    targets: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    hosts: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def proxying(*, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> AsyncIterator[Proxy]:
    """Run a CONNECT proxy; where its answer isn't 200, it opens no tunnel and closes."""
    proxy = Proxy(0)

    async def script(visit: Visit) -> None:
        head = await visit.head()
        target = head.split(b" ", 2)[1].decode()
        proxy.targets.append(target)
        proxy.heads.append(head)
        if b" 200 " not in answer:
            visit.send(answer)
            return
        host, _, port = target.rpartition(":")
        reader, writer = await asyncio.open_connection(proxy.hosts.get(host, host), int(port))
        visit.send(answer)
        await asyncio.gather(_pump(visit.reader, writer), _pump(reader, visit.writer))

    async with serving(script) as endpoint:
        proxy.port = endpoint.port
        yield proxy


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    finally:
        writer.close()


async def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 10) -> None:
    """Wait for a condition; fails with its name after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
