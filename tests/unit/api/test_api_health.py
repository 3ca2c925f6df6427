"""The pages for the operator's tools."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.api.health import make_operations_app


@pytest.fixture
async def state():
    return {"live": True, "ready": {"index": None, "kafka": None}}


@pytest.fixture
async def client(state):
    async def ready():
        if isinstance(state["ready"], Exception):
            raise state["ready"]
        return state["ready"]

    async def metrics():
        return b"# HELP up 1\nup 1\n"

    async with TestClient(TestServer(make_operations_app(lambda: state["live"], ready, metrics))) as client:
        yield client


async def test_healthz_follows_the_process(client, state):
    """A live process answers 200, any other 503 with the reason."""
    response = await client.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})
    state["live"] = "the source consumer's loop hasn't turned for 31 s"
    response = await client.get("/healthz")
    assert response.status == 503
    assert (await response.json())["reason"] == state["live"]
    state["live"] = False
    assert (await client.get("/healthz")).status == 503


async def test_readyz_names_what_is_not_ready(client, state):
    """It is 200 only where everything is ready, and names what isn't and why."""
    assert (await client.get("/readyz")).status == 200
    state["ready"] = {"index": "loading", "kafka": None}
    response = await client.get("/readyz")
    assert response.status == 503
    assert (await response.json())["not_ready"] == {"index": "loading"}
    state["ready"] = RuntimeError("check broke")
    assert (await client.get("/readyz")).status == 503


async def test_metrics_are_prometheus_text(client):
    """The metrics come verbatim with the text format's content type."""
    response = await client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert await response.read() == b"# HELP up 1\nup 1\n"
