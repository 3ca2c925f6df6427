"""`dispatcher receive`: a small endpoint for trying things out, which shows and verifies what arrives."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

import uvloop
from aiohttp import web

from dispatcher.app.serving import Listener, listen
from dispatcher.app.supervisor import call_on_signals

MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived.

    Attributes:
        path: Its path.
        headers: By lower-case name.
        body: Its raw body.
        verdict: `verified`, `WRONG SIGNATURE`, or `not verified` where no secret is known.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    verdict: str


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify both kinds of signature as a receiver would, without a line of the sender's code.

    Source: Standard Webhooks 1.0, "Verifying webhook authenticity".
    """
    plain = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    key = secret.encode()
    if secret.startswith("whsec_"):
        encoded = secret.removeprefix("whsec_").rstrip("=")
        with contextlib.suppress(ValueError):  # no base64: a secret of another form that happens to start so
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) or key
    before = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}."
    signed = before.encode("utf-8", "surrogateescape") + body
    standard = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    offered = headers.get("webhook-signature", "").split(" ")
    return _same(plain, headers.get("x-webhook-signature", "")) and any(_same(standard, each) for each in offered)


def _same(expected: str, offered: str) -> bool:
    return hmac.compare_digest(expected.encode(), offered.encode("utf-8", "surrogateescape"))


def make_receiver(
    secret_of: Callable[[str], str | None], status_of: Callable[[str], int], show: Callable[[Received], None]
) -> web.Application:
    """Make an application that takes every request.

    Args:
        secret_of: Path to the secret to verify with; None: don't.
        status_of: Path to the status to answer.
        show: Told of each request.
    """

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        secret = secret_of(request.path)
        verdict = "not verified"
        if secret is not None:
            verdict = "verified" if verify(secret, headers, body) else "WRONG SIGNATURE"
        show(Received(request.path, headers, body, verdict))
        status = status_of(request.path)
        return web.Response(status=status, text="OK" if status < 300 else "no")  # noqa: PLR2004 - success

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", take)
    return app


def main(*, port: int, status: int, secret: str | None, show: Callable[[str], None]) -> int:
    """Show what arrives until SIGTERM or SIGINT.

    Args:
        port: Where to listen on loopback; 0 takes a free one.
        status: What to answer.
        secret: To verify signatures with; None: they are shown unverified.
        show: Prints lines.

    Returns:
        The exit code.
    """

    def show_one(received: Received) -> None:
        show(f"{received.path}  ({received.verdict})")
        for name, value in received.headers.items():
            show(f"  {name}: {value}")
        body = received.body.decode("utf-8", "replace")
        form = "form-urlencoded" in received.headers.get("content-type", "")
        show(f"  {parse_qs(body).get('payload', [body])[0] if form else body}\n")

    async def serve() -> None:
        stopped = asyncio.Event()
        call_on_signals(stopped.set)
        app = make_receiver(lambda _: secret, lambda _: status, show_one)
        async with listen(app, Listener("127.0.0.1", port)) as at:
            show(f"Listening on http://127.0.0.1:{at} and answering {status}; Ctrl-C ends it.")
            await stopped.wait()

    uvloop.run(serve())
    return 0
