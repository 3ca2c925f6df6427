# ruff: noqa: D102 - the ports say what each method promises
"""Endpoints in memory: a sender whose answers a test decides."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.core.exchange import Request, Response, SendFailure


def answer(
    status: int = 200, *, retry_after: str | None = None, body: bytes = b"OK", duration_ms: float = 1
) -> Response:
    """Make a response."""
    return Response(status, None, "", retry_after, body, duration_ms)


def failure(kind: SendFailure = SendFailure.TIMEOUT, *, duration_ms: float = 1) -> Response:
    """Make what comes where no response does."""
    return Response(0, kind, "nobody answered", None, b"", duration_ms)


@dataclass(eq=False)
class Sent:
    """A request on its way."""

    request: Request
    headers: dict[str, str] = field(repr=False)
    done: Callable[[Response], None] | None = field(repr=False)
    answered: bool = False

    @property
    def delivery_id(self) -> str:
        """`del_…`."""
        return self.headers["webhook-id"]

    @property
    def subscription_id(self) -> str:
        """`wh_…`."""
        return self.headers["x-webhook-id"]

    @property
    def attempt(self) -> int:
        """Its number."""
        return int(self.headers["x-webhook-attempt"])

    def answer(self, response: Response) -> None:
        """Answer now; once."""
        assert not self.answered, "a request has one answer"
        self.answered = True
        self._finish(response)

    def answer_soon(self, response: Response) -> None:
        """Answer on the loop's next turn; once."""
        assert not self.answered, "a request has one answer"
        self.answered = True
        asyncio.get_running_loop().call_soon(self._finish, response)

    def _finish(self, response: Response) -> None:
        done, self.done = self.done, None
        assert done is not None
        done(response)


class MemorySender:
    """A `Sender`.

    Attributes:
        sent: Every request, in order.
        answers: Says what is answered, on the loop's next turn; None: nothing until the test answers.
    """

    def __init__(self, history: list[tuple[object, ...]] | None = None) -> None:
        self.history = [] if history is None else history
        self.sent: list[Sent] = []
        self.answers: Callable[[Sent], Response | None] = lambda _sent: answer()

    @property
    def waiting(self) -> list[Sent]:
        """What was not answered yet."""
        return [each for each in self.sent if not each.answered]

    def send(self, request: Request, done: Callable[[Response], None]) -> None:
        lines = request.head.decode("latin-1").split("\r\n")[1:]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        sent = Sent(request, headers, done)
        self.sent.append(sent)
        self.history.append(("sent", sent.delivery_id, sent.attempt))
        response = self.answers(sent)
        if response is not None:
            sent.answer_soon(response)

    def release(self, response: Response | None = None) -> None:
        """Answer what waits, and everything from now on."""
        response = response or answer()
        self.answers = lambda _sent: response
        for each in self.waiting:
            each.answer(response)
