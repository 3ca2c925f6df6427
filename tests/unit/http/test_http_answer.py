"""Retry-After and failures in words."""

import pytest

from dispatcher.core.exchange import SendFailure
from dispatcher.http.answer import MAX_RETRY_AFTER_LENGTH, fail, read_retry_after


@pytest.mark.parametrize(
    ("head", "value"),
    [
        (b"HTTP/1.1 429 S\r\nRetry-After: 120\r\n\r\n", "120"),
        (bytearray(b"HTTP/1.1 503 S\r\nA: b\r\nRETRY-AFTER:x y \r\n\r\nbody"), "x y"),
        (b"HTTP/1.1 503 S\r\nContent-Length: 20\r\n\r\nRetry-After: 1\r\n\r\n", None),
        (b"HTTP/1.1 503 S\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 1\r\n\r\n", None),
        (b"HTTP/1.1 503 S\r\nRetry-After: " + b"1" * (MAX_RETRY_AFTER_LENGTH + 1) + b"\r\n\r\n", None),
        (b"HTTP/1.1 503 S\r\nX-Retry-After: 1\r\n\r\n", None),
        (b"HTTP/1.1 103 S\r\nRetry-After: 1\r\n\r\nHTTP/1.1 503 S\r\n\r\n", None),
        (b"garbage", None),
        (b"", None),
    ],
)
def test_retry_after_is_the_final_heads(head, value):
    """Only the final response's own header counts: no body, no trailer, no informational response."""
    assert read_retry_after(head) == value


def test_a_failures_words_are_short_and_printable():
    """What an endpoint or a library put into the words can't break a log line or a page."""
    response = fail(SendFailure.TLS, "a\r\nb\x00é" + "x" * 500, 1.5)
    assert response.detail.startswith("a??b??x")
    assert len(response.detail) == 256
    assert (response.status, response.failure, response.duration_ms) == (0, SendFailure.TLS, 1.5)
