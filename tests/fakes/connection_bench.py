"""A connection on a transport that is none: what it reads is fed to it, in whatever pieces."""

from itertools import pairwise
from unittest import mock

from dispatcher.core.exchange import Request
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http.connection import Connection
from dispatcher.http.pool import Pool, make_key

URL = parse_endpoint_url("http://example.com/hook")
REQUEST = Request(URL, b"POST /hook HTTP/1.1\r\n\r\n", b"", 10, "ws")


class Timer:
    """A timer that never fires by itself."""

    def cancel(self) -> None:
        """Forget it."""


class Loop:
    """As much of a loop as a connection needs."""

    def call_later(self, _delay, _callback):
        """Return a timer that never fires."""
        return Timer()

    def call_exception_handler(self, context):
        """Raise what was reported."""
        raise context["exception"]


class Transport:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep what was written."""
        self.written += data

    def writelines(self, parts) -> None:
        """Keep what was written."""
        self.written += b"".join(parts)

    def get_write_buffer_size(self) -> int:
        """Everything is written at once."""
        return 0

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.aborted

    def abort(self) -> None:
        """Close."""
        self.aborted = True


class Bench:
    """A connection with everything around it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers = []
        self.resent = []
        self.transport = Transport()
        with mock.patch("asyncio.get_running_loop", Loop):
            self.pool = Pool(clock=self.clock)
            self.connection = Connection(
                make_key(URL),
                self.pool,
                resend=lambda *call: self.resent.append(call),
                opened=lambda _: None,
                closed=lambda _: None,
                clock=self.clock,
            )
        self.connection.connection_made(self.transport)

    def clock(self) -> float:
        """Return the time, which stands still until it is moved."""
        return self.now

    def start(self, request=REQUEST) -> None:
        """Send a request."""
        self.connection.start(request, self.answers.append, self.now)

    def feed(self, data: bytes, cuts=()) -> None:
        """Give the connection bytes, cut at these places."""
        edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
        for begin, end in pairwise(edges):
            if begin != end:
                self.connection.data_received(data[begin:end])
