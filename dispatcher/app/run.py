"""`dispatcher run`: API and metrics page here, workers as processes under a supervisor.

With `--local` a real Kafka and a real MongoDB run beside them.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog
import uvloop
from aiohttp import web

from dispatcher import config
from dispatcher.api.health import make_operations_app
from dispatcher.app.api import build_api, mongo_readiness
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.app.logging import configure
from dispatcher.app.metrics_page import MetricsPage
from dispatcher.app.open_files import allow_open_files
from dispatcher.app.resolve import resolve_settings
from dispatcher.app.serving import Listener, listen
from dispatcher.app.supervisor import Supervisor, call_on_signals, default_command
from dispatcher.core.errors import SettingsError, UnauthorizedError
from dispatcher.kafka import topics
from dispatcher.local import LocalStack, start_local
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.client import Connection
from dispatcher.operations.api_keys import SCOPES, ApiKeys
from dispatcher.settings import Settings

log = structlog.get_logger(__name__)

READY_WITHIN_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_API_KEY = "api_key"


def run(*, local: bool, workers: int) -> int:
    """Run everything until SIGTERM or SIGINT.

    Args:
        local: Start Kafka and MongoDB where no address is configured; local defaults hold.
        workers: How many worker processes.

    Returns:
        The exit code: 0 after a clean end, else what the supervisor says.
    """
    allow_open_files()
    return uvloop.run(_run(local=local, workers=workers))


async def _run(*, local: bool, workers: int) -> int:
    stopped = asyncio.Event()
    call_on_signals(stopped.set)
    async with _services(stopped, local=local) as (settings, stack):
        if stopped.is_set():
            return 0
        configure(settings.log)
        if local:
            await _make_topics(settings)
        supervisor = Supervisor(default_command(*(["--local"] if local else [])), workers)
        call_on_signals(supervisor.stop)
        if stopped.is_set():
            return 0
        return await _serve(settings, supervisor, stack)


@asynccontextmanager
async def _services(stopped: asyncio.Event, *, local: bool) -> AsyncIterator[tuple[Settings, LocalStack | None]]:
    if not local:
        yield resolve_settings(), None
        return
    wanted = config.load(run_local=True, needs=(), terminal=sys.stderr.isatty())
    kafka, mongo = not wanted.kafka.bootstrap_servers, not wanted.mongo.uri
    # Where both are configured the folder still keeps the encryption key and the API key.
    starting = asyncio.create_task(start_local(wanted.local_dir, kafka=kafka, mongo=mongo, report=_say))
    if not await _ended_before(starting, stopped):
        _say("Stopping what was being started …")
        yield wanted, None
        return
    stack = starting.result()
    try:
        yield resolve_settings(run_local=True, stack=stack), stack
    finally:
        _say("Stopping the local services …")
        await stack.stop()


async def _ended_before(work: "asyncio.Task[Any]", stopped: asyncio.Event) -> bool:
    """Wait for work; False where the process was told to end first: the work is then undone."""
    stopping = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return True
    finally:
        stopping.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
    return False


async def _make_topics(settings: Settings) -> None:
    if done := await topics.ensure(settings.kafka, settings.topics):
        _say(f"Made {len(done)} topics under {settings.topics.prefix}.*")
    for name in settings.topics.source_topics:
        if await topics.create_source_topic(settings.kafka, settings.topics, name):
            _say(f"Made the source topic {name}")


@dataclass(frozen=True, slots=True)
class _Addresses:
    api: str
    metrics: str


async def _serve(settings: Settings, supervisor: Supervisor, stack: LocalStack | None) -> int:
    async with (
        mongo_connection(settings) as connection,
        MetricsPage(supervisor.workers) as page,
        _listening(settings, connection, page) as at,
    ):
        running = asyncio.create_task(supervisor.run())
        greeting = asyncio.create_task(_greet(settings, connection, page, at, stack))
        try:
            return await running
        finally:
            greeting.cancel()


@asynccontextmanager
async def _listening(settings: Settings, connection: Connection, page: MetricsPage) -> AsyncIterator[_Addresses]:
    async def readiness() -> Mapping[str, str | None]:
        _, said = await page.ready()
        workers = {f"worker {number}": None if each["ready"] else _why_not_ready(each) for number, each in said.items()}
        return {**await mongo_readiness(connection), **workers}

    async def metrics() -> bytes:
        return (await page.text()).encode()

    server = settings.server
    chosen = {row.name for row in config.effective(settings) if row.origin == "environment"}
    api = Listener(server.api_host, server.api_port)
    own = Listener(server.metrics_host, server.metrics_port)
    operations = make_operations_app(lambda: True, readiness, metrics)
    async with AsyncExitStack() as stack:
        own_port = await _listen(stack, operations, own, fixed="DISPATCHER_METRICS_PORT" in chosen)
        api_port = await _listen(stack, build_api(settings, connection), api, fixed="DISPATCHER_API_PORT" in chosen)
        yield _Addresses(f"http://{api.host}:{api_port}", f"http://{own.host}:{own_port}")


async def _listen(stack: AsyncExitStack, app: web.Application, at: Listener, *, fixed: bool) -> int:
    """Listen; where the port is taken and nobody asked for this very one, on a free one."""
    try:
        return await stack.enter_async_context(listen(app, at))
    except SettingsError:
        if fixed:
            raise
        port = await stack.enter_async_context(listen(app, replace(at, port=0)))
        _say(f"Port {at.port} is taken; listening on {port} instead")
        return port


async def _greet(
    settings: Settings, connection: Connection, page: MetricsPage, at: _Addresses, stack: LocalStack | None
) -> None:
    """Say that everything is up, and what to try, once it is."""
    await _until_ready(page)
    if stack is None:
        _say(f"Ready. Console {at.api}/console, API {at.api}/v1, metrics {at.metrics}/metrics")
        return
    key = await _local_key(settings, connection, stack)
    _say(_GREETING.format(api=at.api, metrics=at.metrics, key=key))


async def _until_ready(page: MetricsPage) -> None:
    """Return when every worker is ready; say what is missing, now and then, where that takes long."""
    loop = asyncio.get_running_loop()
    say_at = loop.time() + READY_WITHIN_SECONDS
    while True:
        ready, said = await page.ready()
        if ready:
            return
        if loop.time() >= say_at:
            say_at = loop.time() + READY_WITHIN_SECONDS
            for number, each in said.items():
                if not each["ready"]:
                    _say(f"Still waiting for worker {number}: {_why_not_ready(each)}")
        await asyncio.sleep(_LOOK_SECONDS)


def _why_not_ready(detail: Mapping[str, Any]) -> str:
    """Say in words what `MetricsPage.ready` tells of a worker that isn't ready."""
    said = detail.get("said")
    missing = said.get("not_ready") if isinstance(said, dict) else None
    if isinstance(missing, dict):
        return "; ".join(f"{part}: {reason}" for part, reason in missing.items())
    return str(said or detail.get("problem") or "starting")


async def _local_key(settings: Settings, connection: Connection, stack: LocalStack) -> str:
    """Return the API key that the local stack remembers; a new one where it is unknown or revoked."""
    keys = ApiKeys(MongoApiKeys(connection.api_keys), SystemClock(), draw)
    known = stack.recall(_API_KEY)
    if isinstance(known, str):
        try:
            await keys.authenticate(known)
        except UnauthorizedError:
            pass
        else:
            return known
    workspace = settings.topics.default_workspace or "default"
    created = await keys.create(workspace, "local", SCOPES)
    stack.remember(**{_API_KEY: created.plaintext})
    return created.plaintext


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


_GREETING = """
Ready.
  Console  {api}/console
  API      {api}/v1
  Metrics  {metrics}/metrics
  API key  {key}

Try it, in two other terminals:

  .venv/bin/dispatcher receive --port 9000

  curl -s {api}/v1/webhooks \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"url": "http://127.0.0.1:9000/hook", "events": ["user.*"]}}'
  .venv/bin/dispatcher publish --type user.created

Ctrl-C stops everything; the data stays."""
