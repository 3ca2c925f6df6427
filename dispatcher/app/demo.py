"""`dispatcher demo`: the whole story in a terminal, on real services of its own."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import uvloop

from dispatcher import config
from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.app.logging import configure
from dispatcher.app.publish import Publication, publish
from dispatcher.app.receive import Received, make_receiver
from dispatcher.app.resolve import offered
from dispatcher.app.serving import Listener, listen
from dispatcher.app.worker import open_worker
from dispatcher.core.errors import UnavailableError
from dispatcher.core.retry import parse_tier
from dispatcher.kafka import topics
from dispatcher.kafka.dead_letters import DeadLetterReader
from dispatcher.local import start_local
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.operations.api_keys import SCOPES, ApiKeys
from dispatcher.settings import LogSettings, Settings

log = structlog.get_logger(__name__)

TIERS = ("1s", "2s", "3s", "4s", "5s")
_WAIT_SECONDS = 40.0
_FREE = 0


def main() -> int:
    """Tell the story; takes well under a minute once the packages are downloaded.

    Returns:
        The exit code: 0 where everything happened as told.
    """
    return uvloop.run(_Story().tell())


class _Story:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._secrets: dict[str, str] = {}
        self._received: list[Received] = []
        self._arrived = asyncio.Event()

    async def tell(self) -> int:
        folder = config.local_dir({}) / "demo"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            async with self._services(folder) as settings:
                return await self._act(settings)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @asynccontextmanager
    async def _services(self, folder: Path) -> AsyncIterator[Settings]:
        stack = await start_local(folder, kafka=True, mongo=True, report=self._say)
        try:
            settings = config.load({}, local=offered(stack), run_local=True, terminal=sys.stderr.isatty())
            settings = replace(
                settings,
                log=LogSettings("console", "error"),
                topics=replace(settings.topics, tiers=tuple(parse_tier(name) for name in TIERS)),
            )
            configure(settings.log)
            await topics.ensure(settings.kafka, settings.topics)
            await topics.create_source_topic(settings.kafka, settings.topics, settings.topics.source_topics[0])
            yield settings
        finally:
            await stack.stop()

    async def _act(self, settings: Settings) -> int:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(mongo_connection(settings))
            api_port = await stack.enter_async_context(
                listen(build_api(settings, connection), Listener("127.0.0.1", _FREE))
            )
            receiver = make_receiver(self._secrets.get, lambda path: 500 if path == "/broken" else 200, self._show)
            port = await stack.enter_async_context(listen(receiver, Listener("127.0.0.1", _FREE)))
            worker = await stack.enter_async_context(open_worker(settings))
            working = asyncio.create_task(worker.run())
            stack.push_async_callback(_finish, worker, working)
            keys = ApiKeys(MongoApiKeys(connection.api_keys), SystemClock(), draw)
            key = (await keys.create("default", "demo", SCOPES)).plaintext
            session = await stack.enter_async_context(
                aiohttp.ClientSession(f"http://127.0.0.1:{api_port}", headers={"Authorization": f"Bearer {key}"})
            )
            return await self._play(session, settings, port)

    async def _play(self, session: aiohttp.ClientSession, settings: Settings, port: int) -> int:
        self._say("1. Two webhooks are created with POST /v1/webhooks: one endpoint works, one always answers 500.")
        await self._subscribe(session, f"http://127.0.0.1:{port}/works", ["user.*"])
        broken = await self._subscribe(session, f"http://127.0.0.1:{port}/broken", ["user.created"])
        await asyncio.sleep(1.0)  # a change stream brings them to the worker's index
        self._say("2. One user.created event is published to the Kafka topic; the receiver verifies each signature.")
        await publish(settings, Publication("user.created"), lambda _: None)
        await self._until(lambda: self._count("/works") == 1 and self._count("/broken") >= 1)
        self._say(f"3. The broken endpoint is tried again through the delay topics {', '.join(TIERS)}.")
        await self._until(lambda: self._count("/broken") == len(TIERS) + 1)
        self._say("4. After the last attempt the delivery log says so, and the dead-letter topic has it:")
        delivery = await self._failed_delivery(session, broken)
        self._say(f"   {delivery['id']}  {delivery['status']}, {delivery['attempts_made']} attempts")
        await self._say_dead_letters(settings)
        verified = all(received.verdict == "verified" for received in self._received)
        ids = {received.headers["webhook-id"] for received in self._received if received.path == "/broken"}
        self._say(
            f"Told in {time.monotonic() - self._began:.0f} s: {len(self._received)} requests, "
            f"{'all signatures verified' if verified else 'SOME SIGNATURES WRONG'}, "
            f"one webhook-id over all attempts: {'yes' if len(ids) == 1 else 'NO'}."
        )
        return 0 if verified and len(ids) == 1 else 1

    async def _subscribe(self, session: aiohttp.ClientSession, url: str, events: list[str]) -> str:
        async with session.post("/v1/webhooks", json={"url": url, "events": events}) as response:
            webhook = await response.json()
        self._secrets["/" + url.rsplit("/", 1)[1]] = webhook["secret"]
        self._say(f"   {webhook['id']}  {webhook['url']}  {' '.join(webhook['events'])}")
        return str(webhook["id"])

    async def _failed_delivery(self, session: aiohttp.ClientSession, webhook_id: str) -> dict[str, Any]:
        for _ in range(100):
            async with session.get(f"/v1/webhooks/{webhook_id}/deliveries", params={"status": "failed"}) as response:
                rows = (await response.json())["data"]
            if rows:
                return dict(rows[0])
            await asyncio.sleep(0.1)
        raise UnavailableError("the delivery log did not show the failed delivery in 10 s")

    async def _say_dead_letters(self, settings: Settings) -> None:
        reader = DeadLetterReader(settings.kafka, settings.topics)
        try:
            async for batch in reader.read(await reader.snapshot()):
                for letter in batch.letters:
                    told = letter.told()
                    shown = {
                        "partition": letter.partition,
                        "offset": letter.offset,
                        "reason": letter.reason,
                        "error": told.error,
                        "delivery_id": letter.delivery_id,
                        "http_status": letter.http_status,
                        "origin": f"{told.origin.topic}-{told.origin.partition}-{told.origin.offset}",
                    }
                    self._say(f"   dead letter: {json.dumps(shown)}")
        finally:
            await reader.stop()

    def _show(self, received: Received) -> None:
        attempt = received.headers.get("x-webhook-attempt")
        answer = 500 if received.path == "/broken" else 200
        self._say(
            f"   POST {received.path:<8} attempt {attempt}  {received.headers.get('webhook-id')}  "
            f"signature {received.verdict}  -> {answer}"
        )
        self._received.append(received)
        self._arrived.set()

    def _count(self, path: str) -> int:
        return sum(1 for received in self._received if received.path == path)

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(_WAIT_SECONDS):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    def _say(self, line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self._began:5.1f} s  {line}\n")
        sys.stdout.flush()


async def _finish(worker: Any, working: "asyncio.Task[None]") -> None:
    worker.stop()
    await working
