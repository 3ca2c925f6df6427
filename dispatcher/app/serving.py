"""Listening sockets for aiohttp applications."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from dispatcher.app.open_connections import OpenConnections
from dispatcher.app.open_files import open_files_allowed
from dispatcher.core.errors import SettingsError

SHUTDOWN_SECONDS = 3.0
SILENT_SECONDS = 75.0
"""A connection is closed that has sent no whole request head for so long, be it new, idle or half-way through one.

Longer than the minute for which common reverse proxies keep theirs: one that the proxy still counts on must not go.
"""
MAX_CONNECTIONS = 4096
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int


@asynccontextmanager
async def listen(app: web.Application, at: Listener) -> AsyncIterator[int]:
    """Serve an application for the time of the `async with`.

    Yields:
        The port that it listens on.

    Raises:
        SettingsError: The address can't be listened on.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, keepalive_timeout=SILENT_SECONDS)
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("a runner that was set up has a server")
        # Half of the open files at most: the other half is for MongoDB, Kafka and test events.
        connections = OpenConnections(runner.server, min(MAX_CONNECTIONS, open_files_allowed() // 2))
        try:
            server = await asyncio.get_running_loop().create_server(connections, at.host, at.port, backlog=BACKLOG)
        except OSError as error:
            raise SettingsError(
                [f"{at.host}:{at.port} can't be listened on ({error.strerror}); take another port, or 0 for a free one"]
            ) from None
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()
