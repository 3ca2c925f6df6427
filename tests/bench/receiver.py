"""A webhook receiver in a process of its own, cheap enough to share two cores with what is measured.

It answers 200 to everything, counts, and can wait before it answers. Requests of the usual shape (a POST with a
Content-Length, wholly in one segment) are cut out by hand; everything else goes through httptools.

    python -m tests.bench.receiver --port 0 --delay-ms 0

prints `{"port": 12345}` and serves until it is ended. `GET /stats` answers with counts, `POST /reset` clears them,
`--stop-with-parent` ends it with its parent process.
"""

import argparse
import asyncio
import ctypes
import json
import signal
import sys
import time

import httptools
import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
_MAX_SAMPLES = 200_000
_SENT_AT = b'"sent_at_ms":'
_LENGTH = b"ontent-length: "
_LENGTH_LOWER = b"content-length: "


class Counts:
    """What was received since the last reset; times are unix milliseconds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self.first_ms = 0.0
        self.last_ms = 0.0
        self.latencies_ms: list[float] = []

    def note(self, data: bytes) -> None:
        """Count one webhook; where its body carries `sent_at_ms`, keep how long it took."""
        self.count += 1
        at = data.find(_SENT_AT)
        if at >= 0 or self.count == 1:
            now = time.time() * 1000
            if not self.first_ms:
                self.first_ms = now
            if at >= 0 and len(self.latencies_ms) < _MAX_SAMPLES:
                end = at + len(_SENT_AT)
                number = data[end : end + 24].lstrip().split(b",", 1)[0].split(b"}", 1)[0]
                self.latencies_ms.append(round(now - float(number), 3))

    def show(self) -> bytes:
        """Return the counts as JSON."""
        return json.dumps(
            {
                "count": self.count,
                "first_ms": self.first_ms,
                "last_ms": self.last_ms,
                "latencies_ms": self.latencies_ms,
            }
        ).encode()


class Receiver(asyncio.Protocol):
    """One connection."""

    counts: Counts
    delay_seconds: float

    def connection_made(self, transport) -> None:
        """Start without a parser: the usual request needs none."""
        self.transport = transport
        self.parser = None

    def data_received(self, data: bytes) -> None:
        """Answer a request of the usual shape, or hand the connection to the parser for good."""
        if self.parser is None:
            head_end = data.find(b"\r\n\r\n")
            at = data.find(_LENGTH)
            if at < 0:
                at = data.find(_LENGTH_LOWER) + 1
            if data.startswith((b"POST /reset", b"GET ")) or not 0 < at < head_end:
                self._parse(data)
                return
            at += 15
            length = int(data[at : data.find(b"\r", at)])
            if head_end + 4 + length != len(data):
                self._parse(data)
                return
            self.counts.note(data)
            self._answer()
        else:
            self.parser.feed_data(data)

    def _answer(self) -> None:
        if self.delay_seconds:
            asyncio.get_running_loop().call_later(self.delay_seconds, self.transport.write, _OK)
        else:
            self.transport.write(_OK)

    def _parse(self, data: bytes) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.path = b""
        self.body = b""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Note where a request goes."""
        self.path = url
        self.body = b""

    def on_body(self, body: bytes) -> None:
        """Put a body together."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer a parsed request."""
        if self.path == b"/stats":
            answer = self.counts.show()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
            self.transport.write(head.encode() + answer)
        elif self.path == b"/reset":
            self.counts.reset()
            self.transport.write(_OK)
        else:
            self.counts.note(self.body)
            self._answer()


def _note_last(counts: Counts, seen: int, loop: asyncio.AbstractEventLoop) -> None:
    # The clock is not read for each request; the last one's time is good to 5 ms.
    if counts.count != seen:
        counts.last_ms = time.time() * 1000
    loop.call_later(0.005, _note_last, counts, counts.count, loop)


async def serve(port: int, delay_ms: float) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    Receiver.counts = Counts()
    Receiver.delay_seconds = delay_ms / 1000
    server = await loop.create_server(Receiver, "127.0.0.1", port, backlog=4096)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    _note_last(Receiver.counts, 0, loop)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await stopped.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--stop-with-parent", action="store_true")
    options = parser.parse_args()
    if options.stop_with_parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    uvloop.run(serve(options.port, options.delay_ms))


if __name__ == "__main__":
    main()
