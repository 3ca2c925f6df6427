"""Answers that are no success: their Retry-After, and failures as responses."""

import re
from contextlib import suppress
from typing import Any

import httptools

from dispatcher.core.exchange import Response, SendFailure

MAX_DETAIL_LENGTH = 256
"""How long a failure's words may be."""
MAX_RETRY_AFTER_LENGTH = 128
"""How long a Retry-After value may be; a longer one is ignored."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class _HeadersReadError(Exception):
    """Stops the parser: what was looked for has been seen."""


class _RetryAfterReader:
    """Reads the final response's Retry-After header, past informational responses."""

    def __init__(self) -> None:
        self.value: str | None = None
        self._parser: Any = httptools.HttpResponseParser(self)

    def read(self, head: bytes | bytearray) -> str | None:
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(bytes(head))
        self._parser = None  # it holds this object's methods: a cycle
        return self.value

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(value) <= MAX_RETRY_AFTER_LENGTH and name.lower() == b"retry-after":
            self.value = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # noqa: PLR2004 - RFC 9110 section 15.2
            raise _HeadersReadError
        self.value = None


def read_retry_after(head: bytes | bytearray) -> str | None:
    """Return the Retry-After header's value as received, or None.

    Args:
        head: The answer from its first byte on, at least to the end of its final headers.
    """
    return _RetryAfterReader().read(head)


def fail(failure: SendFailure, detail: str, duration_ms: float) -> Response:
    """Make the response of a request that got no complete response headers.

    Args:
        failure: What failed.
        detail: In words; cut to 256 printable ASCII characters.
        duration_ms: From the start to the failure.
    """
    return Response(0, failure, _UNPRINTABLE.sub("?", detail)[:MAX_DETAIL_LENGTH], None, b"", duration_ms)


def explain_parser_error(error: Exception) -> str:
    """Say in words what is wrong with an answer that the parser refused."""
    words = str(error) or type(error).__name__
    return f"the answer is no valid HTTP/1.1 response: {words}"
