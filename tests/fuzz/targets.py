"""What strangers' bytes reach: each target takes an input, checks what must hold, and says in a word what came of it.

- `answers`: an endpoint's answer, read by a connection.
- `tunnel`: the egress proxy's answer to CONNECT.
- `retry_after`: the value of a Retry-After header.
- `events`: the value of a source record.
- `headers`: the headers of a record on an own topic.
"""

import asyncio
import contextlib
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from unittest import mock

from dispatcher.core.decoding import decode
from dispatcher.core.errors import NoConnectionError, UndecodableError
from dispatcher.core.exchange import KEPT_BODY_BYTES, Response
from dispatcher.core.records import decode_dead_letter, decode_headers
from dispatcher.core.retry import parse_retry_after
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http.connection import _MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_INTERIM_RESPONSES
from dispatcher.http.pool import make_key
from dispatcher.http.proxy import MAX_ANSWER_BYTES, EgressProxy, open_tunnel
from tests.fakes.connection_bench import URL, Bench
from tests.fakes.event_records import ORIGIN

Target = Callable[[bytes, Sequence[int]], str]

ANSWER_MEMORY_BYTES = 4 * (MAX_HEAD_BYTES + _MAX_BODY_BYTES)
"""What reading one answer may allocate, whatever its length: it is read in pieces, as from a socket."""
PIECE_BYTES = 65_536
ENDLESS_BYTES = 1_000_000
"""Nothing is read for so long."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


def answers(data: bytes, cuts: Sequence[int]) -> str:
    """Read an answer: one outcome within bounds, and a connection that is kept takes the next answer rightly."""
    bench = Bench()
    bench.start()
    pieces = _pieces(data, [*cuts, *range(0, len(data), PIECE_BYTES)])
    with bounded_memory(ANSWER_MEMORY_BYTES):
        for piece in pieces:
            if bench.transport.aborted:
                break
            bench.connection.data_received(piece)
        if len(cuts) % 3 == 0:
            _go_on_for_ever(bench, data[-1 - len(cuts) % 64 :] or b"x")
    assert bench.connection._interim <= MAX_INTERIM_RESPONSES + 1
    if bench.pool.idle:
        (first,) = bench.answers
        assert bench.pool.take(make_key(URL), bench.now) is bench.connection
        bench.start()
        bench.feed(OK)
        assert [(answer.status, answer.body) for answer in bench.answers[1:]] == [(200, b"OK")]
        _check(first)
        return f"{first.status // 100}xx, kept"
    if not bench.transport.aborted:
        bench.connection.connection_lost(None)
    assert bench.transport.aborted
    (answer,) = bench.answers
    _check(answer)
    return f"{answer.status // 100}xx, closed" if answer.status else str(answer.failure)


def _go_on_for_ever(bench: Bench, tail: bytes) -> None:
    """Repeat the end of an answer that has not ended: it must be given up, whatever it is."""
    piece = tail * (16_384 // len(tail) + 1)
    for _ in range(ENDLESS_BYTES // len(piece)):
        if bench.transport.aborted or bench.pool.idle:
            return
        bench.connection.data_received(piece)
    raise AssertionError(f"after {ENDLESS_BYTES} bytes it still reads")


def _check(answer: Response) -> None:
    assert (answer.failure is None) is (200 <= answer.status <= 999)
    assert len(answer.body) <= KEPT_BODY_BYTES
    assert len(answer.detail) <= 256
    assert answer.detail.isascii()
    assert answer.detail.isprintable()
    if answer.retry_after is not None:
        assert len(answer.retry_after) <= 128
        assert parse_retry_after(answer.retry_after, 0) >= 0


def tunnel(data: bytes, cuts: Sequence[int]) -> str:
    """Read a proxy's answer: a tunnel for a 2xx that ends with its headers, else a failure in words."""
    pieces = [piece[:4096] for piece in _pieces(data, [*cuts, *range(0, len(data), 4096)])]
    taken = 0

    class Loop:
        async def sock_sendall(self, _sock: object, _data: bytes) -> None:
            """Take what is written."""

        async def sock_recv(self, _sock: object, _most: int) -> bytes:
            """Give the next piece."""
            nonlocal taken
            piece = pieces.pop(0) if pieces else b""
            taken += len(piece)
            return piece

    opening = open_tunnel(None, EgressProxy("proxy", 3128), parse_endpoint_url("https://example.com/"))
    with mock.patch.object(asyncio, "get_running_loop", Loop):
        try:
            opening.send(None)
        except StopIteration:
            assert data[:taken].endswith(b"\r\n\r\n")
            assert data[:9] in {b"HTTP/1.1 ", b"HTTP/1.0 "}
            assert data[9:10] == b"2"
            return "tunnel"
        except NoConnectionError as error:
            _check_words(error, 256)
            return str(error).partition(" with status")[0]
        finally:
            _check_taken(taken)
    raise AssertionError("it waits for something else than the proxy")


def retry_after(data: bytes, _cuts: Sequence[int]) -> str:
    """Read a value: a number of seconds, never below zero."""
    seconds = parse_retry_after(data.decode("latin-1"), 1_768_473_000_000)
    assert seconds >= 0
    return "some" if seconds else "none"


def events(data: bytes, cuts: Sequence[int]) -> str:
    """Decode a record: an event with the tenant that was named, or a refusal in words."""
    headers = (
        (),
        (("content-type", b"application/cloudevents+json"),),
        (("ce_specversion", data[:3]), ("ce_id", data)),
    )
    try:
        event = decode(data, headers[len(cuts) % 3], ORIGIN, "default")
    except UndecodableError as error:
        _check_words(error, 1000)
        return "refused"
    assert event.workspace_id
    assert event.type
    assert event.data_json
    return "event"


def headers(data: bytes, cuts: Sequence[int]) -> str:
    """Decode a record's headers: a delivery, or a refusal in words."""
    found = []
    for line in data.split(b"\n"):
        name, _, value = line.partition(b"=")
        found.append((name.decode("latin-1"), value))
    try:
        (decode_headers if len(cuts) % 2 else decode_dead_letter)(tuple(found))
    except UndecodableError as error:
        _check_words(error, 1000)
        return "refused"
    return "read"


TARGETS: dict[str, Target] = {
    "answers": answers,
    "tunnel": tunnel,
    "retry_after": retry_after,
    "events": events,
    "headers": headers,
}


def _check_words(error: Exception, most: int) -> None:
    assert 0 < len(str(error)) <= most


def _check_taken(taken: int) -> None:
    assert taken <= MAX_ANSWER_BYTES + 4096


def _pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [data[begin:end] for begin, end in pairwise(edges)]


class _Memory:
    """The largest allocation that any input made."""

    peak_bytes = 0


MEMORY = _Memory()


@contextlib.contextmanager
def bounded_memory(most: int):
    """Fail where more is allocated within the block; does nothing unless allocations are traced."""
    if not tracemalloc.is_tracing():
        yield
        return
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    yield
    _, peak = tracemalloc.get_traced_memory()
    MEMORY.peak_bytes = max(MEMORY.peak_bytes, peak - before)
    assert peak - before <= most, f"{peak - before} bytes allocated, over {most}"
