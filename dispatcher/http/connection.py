"""One connection to an endpoint: one request at a time, many after each other.

This is the hot path. A request on a reused connection costs no task, no future and no timer of its own: the
connection keeps one timer that sets itself again while it is needed. The parser is llhttp; headers are not even
looked at unless the answer is no success, since only Retry-After matters.

Source: RFC 9112 (HTTP/1.1), RFC 9110 section 15.2 (informational responses).
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

import httptools

from dispatcher.core.exchange import KEPT_BODY_BYTES, Request, Response, SendFailure
from dispatcher.http.answer import explain_parser_error, fail, read_retry_after
from dispatcher.http.pool import Pool, PoolKey
from dispatcher.http.tls import explain_tls_error

MAX_HEAD_BYTES = 65_536
"""Bound on the response headers, informational responses included."""
MAX_INTERIM_RESPONSES = 32
"""Bound on the informational (1xx) responses before the final one."""
DISCARDED_BODY_BYTES = 65_536
"""How much of a body beyond the kept part is read so that the connection can be used again."""
BODY_SECONDS = 1.0
"""How long a body is read after the headers; less where the timeout leaves less."""

_MAX_BODY_BYTES: Final = KEPT_BODY_BYTES + DISCARDED_BODY_BYTES
_LARGE_BODY_BYTES: Final = 65_536
_TIMER_SLACK_SECONDS: Final = 0.001

_IDLE: Final = 0
_HEADERS: Final = 1
_BODY: Final = 2
_COMPLETE: Final = 3
_CLOSED: Final = 4

Done = Callable[[Response], None]
Resend = Callable[[Request, Done, float], None]


class _RefusedAnswerError(Exception):
    """Stops the parser at an answer that it accepts and this client doesn't."""


class Connection(asyncio.Protocol):
    """An open connection and the exchange that is on it.

    Args:
        key: The pool's key.
        pool: Where the connection waits for its next request.
        resend: Sends a request on a new connection; takes the request, its callback and its start.
        opened: Told once when the connection stands, the TLS handshake included.
        closed: Told once when a connection that stood has ended.
        clock: Seconds that never go back.

    Attributes:
        tls_problem: The TLS fault that ended the connection, in words; empty where there was none.
    """

    __slots__ = (
        "_body",
        "_clock",
        "_closed",
        "_deadline",
        "_done",
        "_head",
        "_headers_at",
        "_interim",
        "_keep",
        "_loop",
        "_opened",
        "_parser",
        "_pool",
        "_received",
        "_request",
        "_resend",
        "_started",
        "_state",
        "_status",
        "_surplus",
        "_timer",
        "_timer_at",
        "_transport",
        "idle_since",
        "key",
        "opened_at",
        "requests",
        "tls_problem",
    )

    def __init__(
        self,
        key: PoolKey,
        pool: "Pool[Connection]",
        *,
        resend: Resend,
        opened: "Callable[[Connection], None]",
        closed: "Callable[[Connection], None]",
        clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.opened_at = clock()
        self.idle_since = self.opened_at
        self.requests = 0
        self.tls_problem = ""
        self._pool = pool
        self._resend = resend
        self._opened = opened
        self._closed = closed
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._state = _IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._request: Request | None = None
        self._done: Done | None = None
        self._started = self._deadline = self._headers_at = 0.0
        self._received = self._interim = self._status = 0
        self._head: bytes | bytearray = b""
        self._body = b""
        self._keep = self._surplus = False

    @property
    def busy(self) -> bool:
        """Whether a request is on its way."""
        return self._done is not None

    @property
    def ended(self) -> bool:
        """Whether the loop has said that the connection is lost; one that is about to end says why in its exchange."""
        return self._state != _IDLE or self._transport is None

    def start(self, request: Request, done: Done, started: float) -> None:
        """Send a request; the connection must be idle.

        Args:
            request: What to send.
            done: Called exactly once, later, from the loop.
            started: When the request's time began, in the clock's seconds.
        """
        self._request = request
        self._done = done
        self._started = started
        self._deadline = deadline = started + request.timeout_seconds
        self._state = _HEADERS
        self._received = 0
        self._interim = 0
        self._body = b""
        self.requests += 1
        body = request.body
        transport = cast("asyncio.Transport", self._transport)
        if len(body) < _LARGE_BODY_BYTES:
            transport.write(request.head + body)
        else:
            transport.writelines((request.head, body))
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline)

    def abort(self, detail: str) -> None:
        """Close at once; a request without its headers fails as aborted, one with them has its outcome."""
        self._fail(SendFailure.ABORTED, detail)

    def drop(self) -> None:
        """Close an idle connection at once."""
        self._close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer; those that nobody asked for close the connection."""
        state = self._state
        if state == _HEADERS:
            received = self._received
            self._received = received + len(data)
            self._head = data if not received else self._add_to_head(data)
            if received + len(data) <= MAX_HEAD_BYTES:
                self._feed(data)
            else:
                self._feed_over_limit(data, MAX_HEAD_BYTES - received)
        elif state == _BODY:
            self._received += len(data)
            self._feed(data)
        else:
            self._close()

    def eof_received(self) -> None:
        """Close: an idle connection must not be taken any more."""
        if self._state == _IDLE:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange: before the first byte on a reused connection, it is sent once more on a new one."""
        if isinstance(exc, ssl.SSLError):
            # With TLS 1.3 an endpoint refuses a client certificate after the handshake. One that then resets the
            # connection before the request is written fails the write: its words are lost, and it counts as broken.
            self.tls_problem = explain_tls_error(exc)
        if self._state == _HEADERS and self.requests > 1 and not self._received:
            request, done, started = self._request, self._done, self._started
            self._done = None
            self._close()
            self._resend(cast("Request", request), cast("Done", done), started)
        elif self.tls_problem:
            self._fail(SendFailure.TLS, self.tls_problem)
        else:
            what = "was closed" if exc is None else "broke"
            self._fail(SendFailure.CLOSED, f"the connection {what} before the response headers were complete")
        self._transport = None  # it holds this object: a cycle
        self._closed(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Notice a second answer to one request."""
        if self._state == _COMPLETE:
            self._surplus = True

    def on_headers_complete(self) -> None:
        """Decide the outcome, or step over an informational response."""
        if self._state != _HEADERS:
            return
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - RFC 9110 section 15.2
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                raise _RefusedAnswerError(f"more than {MAX_INTERIM_RESPONSES} informational (1xx) responses came")
            if status == 101 or status < 100:  # noqa: PLR2004
                raise _RefusedAnswerError(f"the endpoint answered with status {status}, which no request asked for")
            return
        self._status = status
        self._headers_at = self._clock()
        self._state = _BODY

    def on_body(self, data: bytes) -> None:
        """Keep the body's beginning."""
        if self._state != _BODY:
            return
        kept = len(self._body)
        if kept < KEPT_BODY_BYTES:
            self._body = self._body + data[: KEPT_BODY_BYTES - kept] if kept else data[:KEPT_BODY_BYTES]

    def on_message_complete(self) -> None:
        """Note the end of the final answer."""
        if self._state == _BODY:
            self._state = _COMPLETE
            self._keep = self._parser.should_keep_alive()

    # From bytes to an outcome.

    def _add_to_head(self, data: bytes) -> bytearray:
        head = self._head if isinstance(self._head, bytearray) else bytearray(self._head)
        head += data
        return head

    def _feed(self, data: bytes) -> None:
        before = self._state
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stop_parsing(error)
            return
        state = self._state
        if state == _COMPLETE:
            self._finish(keep=self._keep and not self._surplus)
        elif state == _BODY:
            if before == _HEADERS:
                self._begin_body(len(data))
            elif self._received > _MAX_BODY_BYTES:
                self._finish(keep=False)

    def _feed_over_limit(self, data: bytes, room: int) -> None:
        # Only so much is shown to the parser that its headers can't pass the cap unnoticed. An answer that ends
        # before the rest isn't followed by another request: the rest would be taken for its answer.
        self._surplus = True
        self._feed(data[:room])
        if self._state == _HEADERS:
            limit = f"{MAX_HEAD_BYTES // 1024} KiB"
            self._fail(SendFailure.PROTOCOL, f"the response headers are larger than {limit}")
        elif self._state == _BODY:
            self._received += len(data) - room
            self._feed(data[room:])

    def _begin_body(self, length: int) -> None:
        if self._headers_at > self._deadline:
            self._finish(keep=False)
            return
        # From here on the body's bytes are counted, those in the first chunk with the headers.
        self._received = length
        self._deadline = min(self._deadline, self._headers_at + BODY_SECONDS)
        self._arm(self._deadline)

    def _stop_parsing(self, error: Exception) -> None:
        if self._state != _HEADERS:
            self._finish(keep=False)
        elif isinstance(error.__context__, _RefusedAnswerError):
            self._fail(SendFailure.PROTOCOL, str(error.__context__))
        else:
            self._fail(SendFailure.PROTOCOL, explain_parser_error(error))

    def _finish(self, *, keep: bool) -> None:
        """Report the outcome that the headers decided, and give the connection back or close it."""
        done = cast("Done", self._done)
        request = cast("Request", self._request)
        headers_at = self._headers_at
        late = headers_at > self._started + request.timeout_seconds
        status = self._status
        if late:
            response = fail(SendFailure.TIMEOUT, self._timeout_words(), (headers_at - self._started) * 1000)
        else:
            retry_after = None if status < 300 else read_retry_after(self._head)  # noqa: PLR2004 - success
            response = Response(status, None, "", retry_after, self._body, (headers_at - self._started) * 1000)
        self._done = self._request = None
        self._head = b""
        # A request that isn't wholly written can't be followed by another.
        transport = cast("asyncio.Transport", self._transport)
        if keep and not late and not transport.get_write_buffer_size():
            self._state = _IDLE
            if not self._pool.put(self, headers_at):
                self._close()
        else:
            self._close()
        self._report(done, response)

    def _fail(self, failure: SendFailure, detail: str) -> None:
        state, done = self._state, self._done
        if state in {_BODY, _COMPLETE} and done is not None:
            self._finish(keep=False)
            return
        self._close()
        if done is not None:
            self._done = self._request = None
            self._report(done, fail(failure, detail, (self._clock() - self._started) * 1000))

    def _report(self, done: Done, response: Response) -> None:
        try:
            done(response)
        except Exception as error:  # noqa: BLE001 - the caller's fault must not end the connection
            self._loop.call_exception_handler({"message": "a response callback failed", "exception": error})

    def _close(self) -> None:
        if self._state == _CLOSED:
            return
        if self._state == _IDLE:
            self._pool.forget(self)
        self._state = _CLOSED
        self._parser = None  # it holds this object's methods: a cycle
        self._head = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # The deadline.

    def _timeout_words(self) -> str:
        seconds = self._request.timeout_seconds if self._request is not None else 0
        return f"no complete response headers within {seconds:g} s"

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(deadline - self._clock(), 0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._state not in {_HEADERS, _BODY}:
            return
        if self._deadline - self._clock() > _TIMER_SLACK_SECONDS:
            self._arm(self._deadline)
        elif self._state == _BODY:
            self._finish(keep=False)
        else:
            self._fail(SendFailure.TIMEOUT, self._timeout_words())
