"""A connection's reading of answers, on a transport that is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.exchange import KEPT_BODY_BYTES, SendFailure
from dispatcher.http.connection import MAX_HEAD_BYTES
from dispatcher.http.pool import make_key
from tests.fakes.connection_bench import REQUEST, URL, Bench

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nT: 1\r\n\r\n"
EARLY = b"HTTP/1.1 103 E\r\nRetry-After: 1\r\n\r\n"
# The answer, its status, body and Retry-After, and whether the connection is kept.
ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", None, True),
    (b"HTTP/1.1 204 No\r\n\r\n", 204, b"", None, True),
    (b"HTTP/1.1 202 A\r\n" + CHUNKED, 202, b"abcde", None, True),
    (EARLY + b"HTTP/1.1 429 S\r\nretry-after: 9 \r\nContent-Length: 0\r\n\r\n", 429, b"", "9", True),
    (EARLY + b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 200, b"x", None, False),
    (b"HTTP/1.0 500 No\r\nContent-Length: 4\r\n\r\nfour", 500, b"four", None, False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n" + b"z" * 6000, 200, b"z" * KEPT_BODY_BYTES, None, True),
]


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 10_000), max_size=30))
def test_the_pieces_of_an_answer_do_not_matter(answer, cuts):
    """However an answer is cut into pieces, its outcome, its body and the connection's fate are the same."""
    data, status, body, retry_after, kept = answer
    bench = Bench()
    bench.start()
    bench.feed(data, cuts)
    assert len(bench.answers) == 1
    response = bench.answers[0]
    assert (response.status, response.failure, response.body) == (status, None, body)
    assert response.retry_after == retry_after
    assert bench.transport.aborted is not kept
    assert bench.pool.idle == kept


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_end_in_one_outcome(data, cuts):
    """Whatever comes, followed by the end of the connection, there is exactly one outcome."""
    bench = Bench()
    bench.start()
    bench.feed(data, cuts)
    bench.connection.connection_lost(None)
    assert len(bench.answers) == 1
    assert len(bench.answers[0].detail) <= 256


@given(st.sampled_from(ANSWERS), st.integers(0, 10_000), st.binary(max_size=20))
def test_damaged_answers_end_in_one_outcome(answer, at, damage):
    """An answer with bytes put into it ends in one outcome as well, and a decided one stands."""
    data = answer[0]
    at %= len(data) + 1
    bench = Bench()
    bench.start()
    bench.feed(data[:at] + damage + data[at:], [at])
    bench.connection.connection_lost(ConnectionResetError())
    assert len(bench.answers) == 1


def test_headers_after_the_deadline_are_a_time_out():
    """Headers that are read after the deadline, before the timer has fired, are late all the same."""
    bench = Bench()
    bench.start()
    bench.now += 10.5
    bench.feed(ANSWERS[0][0])
    assert bench.answers[0].failure is SendFailure.TIMEOUT
    assert bench.transport.aborted


def test_the_duration_ends_with_the_headers():
    """The time that the body takes is not the endpoint's answer time."""
    bench = Bench()
    bench.start()
    bench.now += 0.25
    bench.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nO")
    bench.now += 0.5
    bench.feed(b"K")
    assert bench.answers[0].duration_ms == pytest.approx(250)


def test_an_unused_connection_that_ends_resends_nothing():
    """A first request whose connection ends has failed: the endpoint may have acted on it."""
    bench = Bench()
    bench.start()
    bench.connection.connection_lost(None)
    assert bench.resent == []
    assert bench.answers[0].failure is SendFailure.CLOSED


def test_a_used_connection_that_ends_hands_the_request_back():
    """A later request whose connection ends before any byte is handed back with its start, and not answered."""
    bench = Bench()
    bench.start()
    bench.feed(ANSWERS[0][0])
    bench.pool.take(make_key(URL), bench.now)
    bench.now += 5
    bench.start()
    bench.connection.connection_lost(None)
    assert [(request, started) for request, _, started in bench.resent] == [(REQUEST, 1005.0)]
    assert len(bench.answers) == 1


def test_aborting_a_decided_exchange_keeps_its_outcome():
    """An exchange whose headers are complete has its outcome, even where the sender stops during the body."""
    bench = Bench()
    bench.start()
    bench.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nO")
    bench.connection.abort("stopped")
    assert [(one.status, one.body) for one in bench.answers] == [(200, b"O")]


def test_late_headers_do_not_wait_for_their_body():
    """Headers after the deadline end the exchange at once, with or without the body."""
    bench = Bench()
    bench.start()
    bench.now += 10.5
    bench.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    assert [one.failure for one in bench.answers] == [SendFailure.TIMEOUT]


def test_a_body_over_the_bound_in_one_piece_ends_at_once():
    """A body larger than what is read ends the exchange as soon as that is seen, first piece or later."""
    for cuts in ([], [60]):
        bench = Bench()
        bench.start()
        bench.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"z" * 100_000, cuts)
        assert [(one.status, len(one.body)) for one in bench.answers] == [(200, KEPT_BODY_BYTES)]
        assert bench.transport.aborted


def test_bytes_behind_an_answer_as_long_as_the_cap_are_no_answer():
    """What follows an answer that ends just where the headers' cap does isn't taken for the next one's."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 65000\r\nX: "
    answer = head + b"x" * (MAX_HEAD_BYTES - len(head) - 4 - 65_000) + b"\r\n\r\n" + b"z" * 65_000
    assert len(answer) == MAX_HEAD_BYTES
    bench = Bench()
    bench.start()
    bench.feed(answer + b"surplus")
    assert [one.status for one in bench.answers] == [200]
    assert bench.transport.aborted
    assert bench.pool.idle == 0


def test_an_idle_connection_that_ends_leaves_the_pool_at_once():
    """The end of the stream takes an idle connection out of the pool before the loop says that it is lost."""
    bench = Bench()
    bench.start()
    bench.feed(ANSWERS[0][0])
    assert bench.pool.idle == 1
    bench.connection.eof_received()
    assert bench.pool.take(make_key(URL), bench.now) is None
