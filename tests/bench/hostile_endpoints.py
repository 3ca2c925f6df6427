"""Endpoints that do what a sender fears, one kind a port, in a process of their own.

    python -m tests.bench.hostile_endpoints

It prints each kind's URL as JSON and serves until it is ended.
"""

import asyncio
import contextlib
import ctypes
import gzip
import json
import signal
import sys

import uvloop

from dispatcher.app.worker import allow_open_files
from tests.contract.endpoints import OK, Script, Visit, once, repeat, serving

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_PIECE = 16_384
_DRIP_SECONDS = 0.2


def endless(head: bytes, piece: bytes) -> Script:
    """Answer with a beginning and then the same bytes for ever, as fast as they are read."""
    piece *= _PIECE // len(piece) + 1

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(head)
        while True:
            visit.send(piece)
            await visit.writer.drain()

    return script


def drip(head: bytes, piece: bytes) -> Script:
    """Answer with a beginning and then a little at a time for ever."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(head)
        while not visit.writer.is_closing():
            visit.send(piece)
            await asyncio.sleep(_DRIP_SECONDS)

    return script


async def _hang(visit: Visit) -> None:
    await visit.request()
    await visit.until_closed()


async def _silent(visit: Visit) -> None:
    await visit.until_closed()


async def _close_at_once(visit: Visit) -> None:
    """Close before anything was read."""


async def _reset(visit: Visit) -> None:
    await visit.request()
    visit.reset()


async def _early(visit: Visit) -> None:
    await visit.head()
    visit.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    await visit.until_closed()


async def _late_surplus(visit: Visit) -> None:
    while True:
        await visit.request()
        visit.send(OK)
        await asyncio.sleep(0.01)
        visit.send(b"HTTP/1.1 500 Not Asked\r\nContent-Length: 0\r\n\r\n")


async def _close_behind(visit: Visit) -> None:
    await visit.request()
    visit.send(OK)
    await visit.request()


async def _half(visit: Visit) -> None:
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await visit.until_closed()


def _bomb() -> bytes:
    body = gzip.compress(bytes(50_000_000), 9)
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


KINDS: dict[str, Script] = {
    "hangs": _hang,
    "drips headers": drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "drips a body": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "one endless header": endless(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "endless body": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x"),
    "endless tiny chunks": endless(_CHUNKED, b"1;ext\r\nx\r\n"),
    "endless trailers": endless(_CHUNKED + b"0\r\n", b"X: y\r\n"),
    "endless 100 Continue": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "gzip bomb": repeat(_bomb()),
    "garbage": once(b"\x00\xff\x80garbage" * 500),
    "resets": _reset,
    "closes at once": _close_at_once,
    "closes behind its answer": _close_behind,
    "answers early": _early,
    "64 KiB of headers": repeat(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65_000 + b"\r\nContent-Length: 0\r\n\r\n"),
    "redirects": repeat(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    "two answers in one": repeat(_EMPTY + _EMPTY),
    "an answer nobody asked for": _late_surplus,
    "half a body": _half,
    "switches protocols": once(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"x" * 5000),
    "no TLS": once(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "a silent TLS handshake": _silent,
}
SECURE = {"no TLS", "a silent TLS handshake"}
"""Kinds that are asked by https."""


async def serve() -> None:
    """Serve until the process is ended."""
    allow_open_files()
    # What these scripts write to connections that were just cut is no news.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        urls = {}
        for kind, script in KINDS.items():
            endpoint = await stack.enter_async_context(serving(script))
            urls[kind] = f"{'https' if kind in SECURE else 'http'}://127.0.0.1:{endpoint.port}/hook"
        print(json.dumps(urls), flush=True)
        await stopped.wait()


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    uvloop.run(serve())
