"""Listening sockets for aiohttp applications."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from dispatcher.core.errors import SettingsError

SHUTDOWN_SECONDS = 3.0


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
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, at.host, at.port)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(
                [f"{at.host}:{at.port} can't be listened on ({error.strerror}); take another port, or 0 for a free one"]
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
