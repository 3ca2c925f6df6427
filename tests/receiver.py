"""A webhook endpoint that remembers everything it was sent and answers as it was told, by path.

Cheap enough to stand in the test's own process while a worker runs at full speed.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools

HANG = -1
"""Never answer."""


@dataclass(slots=True)
class Received:
    """One request.

    Attributes:
        at: When it was complete, unix seconds.
        method: `POST`…
        path: As it stood in the request line.
        headers: By lower-case name.
        body: Raw.
        answered: The status that was written, and when, unix seconds; None while there was none.
    """

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    answered: tuple[int, float] | None = None

    @property
    def attempt(self) -> int:
        """Number of the attempt."""
        return int(self.headers["x-webhook-attempt"])

    @property
    def delivery_id(self) -> str:
        """`del_…`."""
        return self.headers["webhook-id"]

    @property
    def accepted(self) -> bool:
        """Whether it was answered with 2xx."""
        return self.answered is not None and 200 <= self.answered[0] < 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers with.

    Attributes:
        status: Status code, or `HANG`.
        delay_seconds: How long that takes.
        headers: Further response headers.
        body: Response body.
    """

    status: int = 200
    delay_seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"OK"


Rule = Callable[[Any], Answer | int]


class Receiver:
    """What was received, and the rules by path; a path without one answers 200.

    Args:
        make: Makes what is remembered of a request, of the fields of `Received` in their order. What it makes must have
            a `path`, and takes `answered`.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        received: Every request, in the order of arrival.
    """

    def __init__(self, make: Callable[..., Any] = Received) -> None:
        self.make = make
        self.port = 0
        self.received: list[Any] = []
        self._rules: dict[str, Rule] = {}
        self._by_path: dict[str, list[Any]] = defaultdict(list)
        self.connections: set[_Connection] = set()

    def url(self, path: str) -> str:
        """Give a path's URL."""
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, rule: Rule | Answer | int) -> None:
        """Set what a path answers from now on: an answer, a status, or what decides for each request."""
        self._rules[path] = rule if callable(rule) else lambda _: rule

    def at(self, path: str) -> list[Any]:
        """Give the requests of a path."""
        return self._by_path[path]

    def take(self, request: Any) -> Answer:
        """Remember a request; say what it is answered with."""
        self.received.append(request)
        self._by_path[request.path].append(request)
        rule = self._rules.get(request.path)
        decided = Answer() if rule is None else rule(request)
        return Answer(decided) if isinstance(decided, int) else decided


class _Connection(asyncio.Protocol):
    """One connection; its client sends one request at a time."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._receiver.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        request = self._receiver.make(time.time(), method, self._path, self._headers, self._body)
        self._begin()
        answer = self._receiver.take(request)
        if answer.status == HANG:
            return
        if answer.delay_seconds:
            asyncio.get_running_loop().call_later(answer.delay_seconds, self._write, request, answer)
        else:
            self._write(request, answer)

    def _write(self, request: Received, answer: Answer) -> None:
        if self.transport.is_closing():
            return
        extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        head = f"HTTP/1.1 {answer.status} Answer\r\n{extra}Content-Length: {len(answer.body)}\r\n\r\n"
        self.transport.write(head.encode() + answer.body)
        request.answered = (answer.status, time.time())


@asynccontextmanager
async def open_receiver(make: Callable[..., Any] = Received) -> AsyncIterator[Receiver]:
    """Listen on a free port of the loopback address; `make` as `Receiver` has it."""
    receiver = Receiver(make)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(receiver), "127.0.0.1", 0, backlog=1024)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for connection in tuple(receiver.connections):
            connection.transport.abort()
        await server.wait_closed()
