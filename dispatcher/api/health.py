"""What the operator's tools ask, without a key, on the metrics port: is it alive, is it ready, how does it do."""

from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Live = Callable[[], bool | str]
"""True where the process works; False or a reason where it should be started anew."""

Ready = Callable[[], Awaitable[Mapping[str, str | None]]]
"""What must be ready, by name, to why it isn't; None where it is."""

Metrics = Callable[[], Awaitable[bytes]]
"""Every instrument in Prometheus' text format."""


def make_operations_app(live: Live, ready: Ready, metrics: Metrics) -> web.Application:
    """Make the application with `/healthz`, `/readyz` and `/metrics`.

    The first two answer 200 or 503 with a JSON object: `status`, and what is wrong by name.

    Source: Prometheus exposition formats, text-based format 0.0.4.
    """

    async def healthz(_: web.Request) -> web.Response:
        answer = live()
        if answer is True:
            return _answer(200, {"status": "ok"})
        return _answer(503, {"status": "failing", "reason": answer or "the process doesn't work any more"})

    async def readyz(_: web.Request) -> web.Response:
        try:
            checks = await ready()
        except Exception as error:  # noqa: BLE001 - a check that fails is an answer, not a fault of the page
            checks = {"readiness": f"can't be told: {type(error).__name__}"}
        missing = {name: reason for name, reason in checks.items() if reason is not None}
        if missing:
            return _answer(503, {"status": "not ready", "not_ready": missing})
        return _answer(200, {"status": "ready"})

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": METRICS_CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return app


def _answer(status: int, body: Mapping[str, object]) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
    )
