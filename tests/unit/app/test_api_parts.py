"""What the API's port serves beside the API; no service is needed for it."""

import re

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.app import api, run
from dispatcher.app.api import build_api
from dispatcher.mongo.client import connect
from dispatcher.settings import KafkaSettings, MongoSettings, Settings


async def test_the_console_stands_beside_the_api(unused_tcp_port):
    """The root leads to it, it asks for a key, and it sends no problem documents; the API sends no pages."""
    settings = Settings(
        KafkaSettings(""), MongoSettings(f"mongodb://127.0.0.1:{unused_tcp_port}/"), encryption_keys=(b"k" * 32,)
    )
    connection = connect(settings.mongo)
    try:
        async with TestClient(TestServer(build_api(settings, connection))) as client:
            page = await client.get("/")
            assert (page.status, page.url.path) == (200, "/console/sign-in")
            assert "Sign in" in await page.text()
            style = re.search(r'href="(/console/static/[^"]+\.css)"', await page.text())
            assert (await client.get(style[1])).status == 200
            api = await client.get("/v1/nowhere")
            assert (api.status, api.content_type) == (404, "application/problem+json")
    finally:
        connection.close()


class Reached(Exception):  # noqa: N818 - no error
    """What a test waits for was called."""


@pytest.mark.parametrize(
    ("part", "start"), [(api, lambda: api.main(local=False)), (run, lambda: run.run(local=False, workers=1))]
)
def test_whoever_serves_the_api_raises_its_bound_on_open_files(monkeypatch, part, start):
    """Clients and test events are connections, and the usual bound is low."""

    def reached():
        raise Reached

    monkeypatch.setattr(part, "allow_open_files", reached)
    monkeypatch.setattr(part, "resolve_settings", lambda *_, **__: None)
    with pytest.raises(Reached):
        start()
