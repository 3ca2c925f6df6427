"""The sender against endpoints that answer well, badly or never, over real sockets."""

import asyncio
import contextlib
import gzip
import tracemalloc

import pytest

from dispatcher.core.exchange import KEPT_BODY_BYTES, Response, SendFailure
from dispatcher.http.connection import MAX_HEAD_BYTES, MAX_INTERIM_RESPONSES
from dispatcher.http.sender import Sender
from tests.contract.endpoints import (
    LOOPBACK,
    OK,
    Script,
    Visit,
    get_free_port,
    make_request,
    once,
    repeat,
    serving,
    wait_until,
)

CHUNK = b"x" * 65_536


@pytest.fixture
async def sender():
    made = Sender(LOOPBACK)
    yield made
    await made.close()


async def ask(sender: Sender, script: Script, *, body: bytes = b"{}", timeout_seconds: float = 10) -> Response:
    async with serving(script) as endpoint:
        return await sender.exchange(make_request(endpoint.url, body, timeout_seconds=timeout_seconds))


async def test_an_answer_comes_back_with_status_body_and_duration(sender):
    """The request arrives as rendered, and its answer's status, body and duration come back."""
    async with serving(repeat(OK)) as endpoint:
        request = make_request(endpoint.url, b'{"a":1}')
        response = await sender.exchange(request)
    assert (response.status, response.failure, response.body, response.retry_after) == (200, None, b"OK", None)
    assert response.duration_ms > 0
    assert endpoint.requests == [(request.head, b'{"a":1}')]


async def test_done_is_called_once_and_never_from_within_send(sender):
    """The callback runs later, from the loop, exactly once, for good and for refused requests alike."""
    async with serving(repeat(OK)) as endpoint:
        for url in (endpoint.url, endpoint.url, "http://10.0.0.1/"):
            answers = []
            sender.send(make_request(url), answers.append)
            assert answers == []
            await wait_until(lambda answers=answers: bool(answers), "an outcome")
            await asyncio.sleep(0)
            assert len(answers) == 1


async def test_no_content_has_no_body_and_keeps_the_connection(sender):
    """A 204 is complete with its headers, and the connection carries the next request."""
    async with serving(repeat(b"HTTP/1.1 204 No Content\r\n\r\n")) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url))).status == 204
        assert endpoint.connections == 1


async def test_a_chunked_body_is_put_together(sender):
    """A chunked body is decoded, trailers are ignored, and the connection is kept."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nRetry-After: 5\r\n\r\n"
    async with serving(repeat(answer)) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url))).body == b"abcde"
        assert endpoint.connections == 1


async def test_an_http_1_0_body_ends_with_the_connection(sender):
    """A body without a length ends where the server closes, which is no failure."""
    response = await ask(sender, once(b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end"))
    assert (response.status, response.failure, response.body) == (200, None, b"until the end")


async def test_headers_may_come_byte_by_byte(sender):
    """An answer in the smallest pieces, in time, is read like any other."""

    async def script(visit: Visit) -> None:
        await visit.request()
        for byte in b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nContent-Length: 2\r\n\r\nno":
            visit.send(bytes([byte]))
            await asyncio.sleep(0)

    response = await ask(sender, script)
    assert (response.status, response.retry_after, response.body) == (429, "17", b"no")


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
async def test_retry_after_is_captured(sender, name):
    """The value comes as received, whatever the header's case, and not from an informational response."""
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    early = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 1\r\n\r\n"
    final = f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n{name}:  {date}\r\n\r\n"
    assert (await ask(sender, once(early + final.encode()))).retry_after == date
    assert (await ask(sender, once(early + b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))).retry_after is None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(sender, status):
    """A redirect is an answer like another; nothing is sent to where it points."""
    async with serving(repeat(OK)) as other:
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        assert (await ask(sender, repeat(answer))).status == status
        assert other.connections == 0


async def test_an_offered_upgrade_changes_nothing(sender):
    """A 200 that offers another protocol, as Apache does for HTTP/2, is a plain 200."""
    answer = b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nOK"
    response = await ask(sender, repeat(answer))
    assert (response.status, response.failure, response.body) == (200, None, b"OK")


async def test_informational_responses_are_stepped_over(sender):
    """A few 1xx answers before the final one are skipped, split or not."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert (await ask(sender, once(early + OK))).status == 200
    assert (await ask(sender, once(early[:30], early[30:], OK))).status == 200


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"042 Early"])
async def test_a_status_that_no_request_asks_for_fails(sender, status):
    """A 101 or a status below 100 is a protocol failure, with or without the headers of an upgrade."""
    for headers in (b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"):
        response = await ask(sender, once(b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n"))
        assert (response.status, response.failure) == (0, SendFailure.PROTOCOL)


async def test_a_flood_of_informational_responses_fails(sender):
    """More 1xx answers than the bound fail, and the connection is closed."""

    async def script(visit: Visit) -> None:
        await visit.request()
        with contextlib.suppress(ConnectionError):
            while True:
                visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                await visit.writer.drain()

    response = await ask(sender, script)
    assert response.failure is SendFailure.PROTOCOL
    assert str(MAX_INTERIM_RESPONSES) in response.detail


async def test_endless_headers_fail_at_the_cap(sender):
    """Headers that never end fail at the cap, long before the deadline."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            visit.send(b"X-Filler: " + b"y" * 1000 + b"\r\n")
            await visit.writer.drain()

    response = await ask(sender, script, timeout_seconds=60)
    assert response.failure is SendFailure.PROTOCOL
    assert "64 KiB" in response.detail


@pytest.mark.parametrize("shape", ["one value", "one name", "complete at once"])
async def test_huge_headers_fail_in_every_shape(sender, shape):
    """The cap counts bytes, not lines: one endless value or name, or a head that comes complete in one piece."""
    filler = b"y" * (MAX_HEAD_BYTES + 1)
    heads = {
        "one value": b"HTTP/1.1 200 OK\r\nX-Filler: " + filler,
        "one name": b"HTTP/1.1 200 OK\r\n" + filler,
        "complete at once": b"HTTP/1.1 200 OK\r\nX-Filler: " + filler + b"\r\nContent-Length: 0\r\n\r\n",
    }
    response = await ask(sender, once(heads[shape]))
    assert response.failure is SendFailure.PROTOCOL


async def test_large_headers_below_the_cap_are_fine(sender):
    """Headers just below the cap, with a body behind them, are read."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\nX-Filler: " + b"y" * (MAX_HEAD_BYTES - 200) + b"\r\n\r\n"
    response = await ask(sender, once(head + b"b" * 50_000))
    assert (response.status, response.body) == (200, b"b" * KEPT_BODY_BYTES)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"<html>hello</html>",
    ],
)
async def test_garbage_is_a_protocol_failure(sender, garbage):
    """What is no HTTP/1.x response fails as such, at once and in words."""
    response = await ask(sender, once(garbage, b"\r\n\r\n"), timeout_seconds=60)
    assert (response.status, response.failure) == (0, SendFailure.PROTOCOL)
    assert response.detail


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_closing_early_fails(sender, part):
    """A connection that ends before the headers do fails the request; a new connection gets no second try."""
    async with serving(once(part)) as endpoint:
        response = await sender.exchange(make_request(endpoint.url))
        assert (response.status, response.failure) == (0, SendFailure.CLOSED)
        assert endpoint.connections == 1


async def test_a_reset_fails(sender):
    """A connection that is reset instead of closed fails the same way."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.reset()

    assert (await ask(sender, script)).failure is SendFailure.CLOSED


async def test_a_refused_connection_fails(sender):
    """Where nothing listens, the request fails in words."""
    response = await sender.exchange(make_request(f"http://127.0.0.1:{get_free_port()}/"))
    assert (response.failure, response.detail) == (SendFailure.CONNECT, "connection refused")


@pytest.mark.parametrize("drip", [b"", b"X-Drip: 1\r\n"])
async def test_the_deadline_counts_to_the_complete_headers(sender, drip):
    """An endpoint that is silent, or drips headers for ever, fails at the deadline and is closed."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\n" if drip else b"")
        while not visit.reader.at_eof():
            visit.send(drip)
            await asyncio.sleep(0.02)

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(endpoint.url, timeout_seconds=0.3))
        assert (response.status, response.failure) == (0, SendFailure.TIMEOUT)
        assert "0.3 s" in response.detail
        await wait_until(lambda: endpoint.open == 0, "the connection is closed")


async def test_a_shorter_timeout_on_a_reused_connection_counts(sender):
    """A connection's timer of an earlier, longer deadline doesn't delay a shorter one."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await visit.request()
        await visit.until_closed()

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url, timeout_seconds=600))
        response = await sender.exchange(make_request(endpoint.url, timeout_seconds=0.2))
    assert response.failure is SendFailure.TIMEOUT


async def test_a_longer_timeout_on_a_reused_connection_counts(sender):
    """A timer of an earlier, shorter deadline doesn't end a later request with more time."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await visit.request()
        await asyncio.sleep(0.4)
        visit.send(OK)
        await visit.until_closed()

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url, timeout_seconds=0.2))
        assert (await sender.exchange(make_request(endpoint.url, timeout_seconds=60))).status == 200


@pytest.mark.parametrize("head", [b"Content-Length: 99999999999\r\n", b"", b"Transfer-Encoding: chunked\r\n"])
async def test_an_endless_body_is_a_success(sender, head):
    """A body without end changes nothing: its beginning is kept, and the connection is closed."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while True:
            visit.send(b"10000\r\n" + CHUNK + b"\r\n" if b"chunked" in head else CHUNK)
            await visit.writer.drain()

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(endpoint.url, timeout_seconds=60))
        assert (response.status, response.failure, len(response.body)) == (200, None, KEPT_BODY_BYTES)
        await wait_until(lambda: endpoint.open == 0, "the connection is closed")


async def test_a_body_that_stops_half_way_is_a_success(sender):
    """A body that never comes to its end is given up after the headers' outcome was decided."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await visit.until_closed()

    response = await ask(sender, script, timeout_seconds=60)
    assert (response.status, response.failure, response.body) == (200, None, b"half")
    assert response.duration_ms < 60_000


@pytest.mark.parametrize("rest", [b"", b"zz not a chunk\r\n"])
async def test_a_broken_body_is_a_success(sender, rest):
    """A body that is cut off, or whose chunks can't be read, doesn't change the outcome."""
    response = await ask(sender, once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", rest))
    assert (response.status, response.failure) == (200, None)


async def test_a_body_of_tiny_chunks_is_bounded_in_bytes_received(sender):
    """One-byte chunks count with their framing, so that a body of them is given up too."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            visit.send(b"1;" + b"e" * 1000 + b"\r\nx\r\n")
            await visit.writer.drain()

    response = await ask(sender, script, timeout_seconds=60)
    assert response.status == 500
    assert 0 < len(response.body) < 200


@pytest.mark.parametrize("endless", [b"X-Trailer: y\r\n" * 1000, b"X-Trailer-" + b"y" * 16_000])
async def test_endless_trailers_are_a_success(sender, endless):
    """Trailers without end, of many lines or of one, are given up after the outcome was decided; nothing is kept."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n")
        while True:
            visit.send(endless)
            await visit.writer.drain()

    async with serving(script) as endpoint:
        response = await sender.exchange(make_request(endpoint.url, timeout_seconds=60))
        assert (response.status, response.failure, response.body) == (200, None, b"OK")
        await wait_until(lambda: endpoint.open == 0, "the connection is closed")


async def test_an_endless_chunk_extension_is_a_success(sender):
    """An extension of a chunk's size line that never ends is given up like an endless body."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nRetry-After: 3\r\n\r\n2;")
        while True:
            visit.send(b"e" * 16_000)
            await visit.writer.drain()

    response = await ask(sender, script, timeout_seconds=60)
    assert (response.status, response.retry_after, response.body) == (503, "3", b"")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_a_compressed_bomb_stays_compressed(sender, coding):
    """A body that would inflate to 100 MB is kept as it came, its first 4 KiB, and takes no memory to speak of."""
    bomb = gzip.compress(bytes(100_000_000), 9)
    assert len(bomb) < 100_000
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with serving(repeat(head.encode() + bomb)) as endpoint:
        await sender.exchange(make_request(endpoint.url))
        tracemalloc.start()
        try:
            response = await sender.exchange(make_request(endpoint.url))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (response.status, response.failure, response.body) == (200, None, bomb[:KEPT_BODY_BYTES])
    assert peak < 3_000_000


async def test_continue_that_nobody_asked_for_decides_nothing(sender):
    """A 100 alone is no outcome: the final answer is, and without one the deadline."""

    async def script(visit: Visit) -> None:
        head, _ = await visit.request()
        assert b"expect" not in head.lower()
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.until_closed()

    assert (await ask(sender, script, timeout_seconds=0.2)).failure is SendFailure.TIMEOUT
    early = once(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
    assert (await ask(sender, early)).status == 417


async def test_a_body_within_the_discarded_part_keeps_the_connection(sender):
    """A body somewhat larger than what is kept is read to its end, and the connection is used again."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + b"b" * 40_000
    async with serving(repeat(answer)) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url))).body == b"b" * KEPT_BODY_BYTES
        assert endpoint.connections == 1


@pytest.mark.parametrize("size", [70_000, 1_048_576, 5_000_000])
async def test_a_large_request_body_arrives(sender, size):
    """A body larger than the socket's buffers is written whole, and the connection is used again."""
    body = b"r" * size
    async with serving(repeat(OK)) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url, body))).status == 200
        assert [len(received) for _, received in endpoint.requests] == [size, size]
        assert endpoint.connections == 1


async def test_an_answer_before_the_request_was_read_counts(sender):
    """An early answer is the outcome, and the connection with the half-written request isn't used again."""

    async def script(visit: Visit) -> None:
        await visit.head()
        visit.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with serving(script) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url, b"r" * 20_000_000))).status == 413
        assert endpoint.connections == 2
