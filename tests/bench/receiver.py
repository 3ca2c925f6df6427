"""A webhook receiver in a process of its own, cheap enough to share two cores with what is measured.

It counts by the first segment of the path, which also says how it answers: `/wait-100/…` 200 after 100 ms, `/hang/…`
never, `/fail/…` 500, `/odd/…` 500 to the first attempt of each event with an odd number, everything else 200 at once.
Requests of the usual shape (a POST with a Content-Length, wholly in one segment) are cut out by hand; everything else
goes through httptools.

    python -m tests.bench.receiver --port 0

prints `{"port": 12345}` and serves until it is ended. `GET /stats` answers with counts and latencies by segment,
`GET /counts` with counts only, `POST /reset` clears them, `--stop-with-parent` ends it with its parent process.
"""

import argparse
import asyncio
import ctypes
import json
import re
import signal
import sys
import time

import httptools
import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_ODD_FIRST = re.compile(rb'(?i:\r\nx-webhook-attempt: 1\r\n)[^\0]*"n":[0-9]*[13579][,}]').search
_SEGMENT = re.compile(rb"[^/ ?]*").match
_MAX_SAMPLES = 200_000
_SENT_AT = b'"sent_at_ms":'
_LENGTH = b"ontent-Length: "
_LENGTH_LOWER = b"content-length: "


class Group:
    """What came to paths that begin with one segment since the last reset.

    Args:
        name: The segment.
    """

    def __init__(self, name: str) -> None:
        self.hangs = name == "hang"
        self.answer = _FAILED if name == "fail" else _OK
        self.fails_odd = name == "odd"
        self.delay_seconds = float(name[5:]) / 1000 if name.startswith("wait-") else 0.0
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self.latencies_ms: list[float] = []

    def note(self, data: bytes) -> None:
        """Count one webhook; where its body carries `sent_at_ms`, keep how long it took."""
        self.count += 1
        at = data.find(_SENT_AT)
        if at >= 0 and len(self.latencies_ms) < _MAX_SAMPLES:
            end = at + len(_SENT_AT)
            number = data[end : end + 24].lstrip().split(b",", 1)[0].split(b"}", 1)[0]
            self.latencies_ms.append(round(time.time() * 1000 - float(number), 3))


class Groups(dict[bytes, Group]):
    """All groups by their segment; asked for one, it is made."""

    def __missing__(self, segment: bytes) -> Group:
        """Make a group."""
        group = self[segment] = Group(segment.decode())
        return group

    def show(self, *, latencies: bool) -> bytes:
        """Return the counts as JSON."""
        found: dict[str, object] = {name.decode(): each.count for name, each in self.items()}
        if latencies:
            found = {
                name.decode(): {"count": each.count, "latencies_ms": each.latencies_ms} for name, each in self.items()
            }
        return json.dumps(found).encode()


class Receiver(asyncio.Protocol):
    """One connection."""

    groups: Groups

    def connection_made(self, transport) -> None:
        """Start without a parser: the usual request needs none."""
        self.transport = transport
        self.parser = None
        self.segment = b""

    def data_received(self, data: bytes) -> None:
        """Answer a request of the usual shape, or hand the connection to the parser for good."""
        self.segment = data
        if self.parser is None:
            head_end = data.find(b"\r\n\r\n")
            at = data.find(_LENGTH)
            if at < 0:
                at = data.find(_LENGTH_LOWER) + 1
            if not data.startswith(b"POST /") or data.startswith(b"POST /reset") or not 0 < at < head_end:
                self._parse(data)
                return
            at += 15
            length = int(data[at : data.find(b"\r", at)])
            if head_end + 4 + length != len(data):
                self._parse(data)
                return
            self._answer(self.groups[_SEGMENT(data, 6).group()], data)
        else:
            self.parser.feed_data(data)

    def _answer(self, group: Group, data: bytes) -> None:
        group.note(data)
        if group.fails_odd and _ODD_FIRST(self.segment):
            self.transport.write(_FAILED)
        elif group.delay_seconds:
            asyncio.get_running_loop().call_later(group.delay_seconds, self._write, group.answer)
        elif not group.hangs:
            self.transport.write(group.answer)

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)

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
        if self.path in {b"/stats", b"/counts"}:
            answer = self.groups.show(latencies=self.path == b"/stats")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
            self.transport.write(head.encode() + answer)
        elif self.path == b"/reset":
            for group in self.groups.values():
                group.reset()
            self.transport.write(_OK)
        else:
            self._answer(self.groups[_SEGMENT(self.path, 1).group()], self.body)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    Receiver.groups = Groups()
    server = await loop.create_server(Receiver, "127.0.0.1", port, backlog=4096)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await stopped.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stop-with-parent", action="store_true")
    options = parser.parse_args()
    if options.stop_with_parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    uvloop.run(serve(options.port))


if __name__ == "__main__":
    main()
