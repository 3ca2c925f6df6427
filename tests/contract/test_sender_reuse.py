"""Keep-alive and its traps, over real sockets."""

import asyncio
from pathlib import Path

import pytest

from dispatcher.core.exchange import SendFailure
from dispatcher.http.sender import Sender
from tests.contract.endpoints import LOOPBACK, OK, Visit, get_free_port, make_request, once, repeat, serving, wait_until


@pytest.fixture
async def sender():
    made = Sender(LOOPBACK)
    yield made
    await made.close()


async def test_requests_after_each_other_share_a_connection(sender):
    """Sequential requests to one endpoint use one connection, and the counts say so."""
    async with serving(repeat(OK)) as endpoint:
        for _ in range(5):
            await sender.exchange(make_request(endpoint.url))
        stats = sender.stats()
        assert endpoint.connections == 1
        assert (stats.open, stats.idle, stats.in_flight, stats.connects_total, stats.reused_total) == (1, 1, 0, 1, 4)


async def test_requests_at_the_same_time_have_connections_of_their_own(sender):
    """There is no pipelining: each request in flight has its own connection."""
    async with serving(repeat(OK)) as endpoint:
        answers = await asyncio.gather(*(sender.exchange(make_request(endpoint.url)) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert endpoint.connections == 20


async def test_a_callback_may_send_the_next_request(sender):
    """A request sent from within a callback goes out on the connection that has just become idle."""
    async with serving(repeat(OK)) as endpoint:
        statuses = []

        def again(response):
            statuses.append(response.status)
            if len(statuses) < 50:
                sender.send(make_request(endpoint.url), again)

        sender.send(make_request(endpoint.url), again)
        await wait_until(lambda: len(statuses) == 50, "fifty answers")
        assert set(statuses) == {200}
        assert endpoint.connections == 1


async def test_a_callback_that_raises_ends_nothing(sender):
    """A callback's exception is reported to the loop, and the connection goes on."""
    loop, reported = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    try:
        async with serving(repeat(OK)) as endpoint:
            sender.send(make_request(endpoint.url), lambda _: 1 / 0)
            await wait_until(lambda: bool(reported), "the exception is reported")
            assert (await sender.exchange(make_request(endpoint.url))).status == 200
            assert endpoint.connections == 1
    finally:
        loop.set_exception_handler(None)


async def test_connection_close_is_obeyed(sender):
    """After `Connection: close` the next request has a new connection, even where the server keeps it open."""
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with serving(repeat(answer)) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url))).status == 200
        assert endpoint.connections == 2


async def test_a_connection_that_was_closed_while_idle_is_not_used(sender):
    """An idle connection that the server closes leaves the pool; the next request has a new one."""
    async with serving(once(OK)) as endpoint:
        for _ in range(3):
            assert (await sender.exchange(make_request(endpoint.url))).status == 200
            await wait_until(lambda: sender.stats().idle == 0, "the closed connection has left the pool")
        assert endpoint.connections == 3
        assert sender.stats().resent_total == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_request_that_meets_a_closing_connection_is_sent_once_more(sender, reset):
    """A reused connection that ends before any byte of the answer costs nothing but a new connection."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await visit.request()
        if visit.number == 1:
            if reset:
                visit.reset()
            return
        visit.send(OK)
        await visit.until_closed()

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url))
        response = await sender.exchange(make_request(endpoint.url, b"second"))
        assert response.status == 200
        assert endpoint.connections == 2
        assert [body for _, body in endpoint.requests] == [b"{}", b"second", b"second"]
        assert sender.stats().resent_total == 1


async def test_a_request_is_sent_once_more_only_once(sender):
    """Where the new connection ends without an answer as well, the request fails."""

    async def script(visit: Visit) -> None:
        await visit.request()
        if visit.number == 1:
            visit.send(OK)
            await visit.request()

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url))
        response = await sender.exchange(make_request(endpoint.url))
        assert response.failure is SendFailure.CLOSED
        assert endpoint.connections == 2


async def test_a_request_with_a_byte_of_its_answer_is_not_sent_again(sender):
    """Once an answer has begun, the endpoint may have acted: a failure is final."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        await visit.request()
        visit.send(b"H")
        await visit.writer.drain()

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url))
        response = await sender.exchange(make_request(endpoint.url))
        assert response.failure is SendFailure.CLOSED
        assert endpoint.connections == 1


async def test_bytes_on_an_idle_connection_close_it(sender):
    """An answer that nobody asked for is never taken for the next request's."""
    poke = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(OK)
        if visit.number == 1:
            await poke.wait()
            visit.send(b"HTTP/1.1 500 Not Asked\r\nContent-Length: 0\r\n\r\n")
        await visit.until_closed()

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url))
        poke.set()
        await wait_until(lambda: sender.stats().open == 0, "the connection is closed")
        assert (await sender.exchange(make_request(endpoint.url))).status == 200
        assert endpoint.connections == 2


@pytest.mark.parametrize("surplus", [OK, b"H", b"garbage"])
async def test_bytes_behind_an_answer_close_the_connection(sender, surplus):
    """What comes in one piece with an answer, behind its end, isn't taken for the next one's."""

    async def script(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n" + surplus)
        await visit.until_closed()

    async with serving(script) as endpoint:
        for _ in range(2):
            assert (await sender.exchange(make_request(endpoint.url))).status == 201
        assert endpoint.connections == 2


async def test_other_ports_and_hosts_have_connections_of_their_own(sender):
    """A connection is never used for another host or port, even where both lead to the same server."""
    async with serving(repeat(OK)) as endpoint, serving(repeat(OK)) as other:
        for url in (endpoint.url, endpoint.url_for("localhost"), other.url):
            assert (await sender.exchange(make_request(url))).status == 200
        assert (endpoint.connections, other.connections) == (2, 1)


async def test_closing_aborts_what_is_in_flight():
    """Closing ends requests that wait for an answer, and those that wait for a connection, as aborted."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.until_closed()

    async with serving(script) as endpoint:
        sender, answers = Sender(LOOPBACK), []
        sender.send(make_request(endpoint.url), answers.append)
        await wait_until(lambda: len(endpoint.requests) == 1, "the request has arrived")
        sender.send(make_request(endpoint.url), answers.append)
        assert sender.stats().in_flight == 2
        await sender.close()
        assert [answer.failure for answer in answers] == [SendFailure.ABORTED] * 2
        await wait_until(lambda: sender.stats().open == 0 and endpoint.open == 0, "everything is closed")


async def test_closing_waits_for_the_drain():
    """A request that is answered within the drain has its outcome; later sends are refused as aborted."""
    answer_now = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        await answer_now.wait()
        visit.send(OK)

    async with serving(script) as endpoint:
        sender, answers = Sender(LOOPBACK), []
        sender.send(make_request(endpoint.url), answers.append)
        await wait_until(lambda: len(endpoint.requests) == 1, "the request has arrived")
        closing = asyncio.create_task(sender.close(drain_seconds=30))
        await asyncio.sleep(0)
        assert (await sender.exchange(make_request(endpoint.url))).failure is SendFailure.ABORTED
        answer_now.set()
        await closing
        assert [answer.status for answer in answers] == [200]


async def test_failures_leave_no_file_descriptor_behind(sender):
    """Refused, timed out, broken and garbled exchanges close what they opened."""

    async def script(visit: Visit) -> None:
        await visit.request()
        if visit.number % 3 == 0:
            visit.send(b"garbage\r\n\r\n")
        elif visit.number % 3 == 1:
            await visit.until_closed()

    def count() -> int:
        return len(tuple(Path("/proc/self/fd").iterdir()))

    async with serving(script) as endpoint:
        await sender.exchange(make_request(endpoint.url, timeout_seconds=0.05))
        await wait_until(lambda: endpoint.open == 0, "the first connection is closed")
        before = count()
        urls = [endpoint.url, f"https://127.0.0.1:{endpoint.port}/", f"http://127.0.0.1:{get_free_port()}/"]
        requests = [make_request(url, timeout_seconds=0.1) for url in urls * 10]
        answers = await asyncio.gather(*(sender.exchange(request) for request in requests))
        assert all(answer.failure for answer in answers)
        await wait_until(lambda: count() <= before, "all descriptors are closed")
        assert sender.stats().open == 0
