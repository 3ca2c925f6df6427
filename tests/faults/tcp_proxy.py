"""A network between a client and a server of this machine that can be cut: nothing passes, nobody is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

_CHUNK_BYTES = 64 * 1024


class TcpProxy:
    """Passes bytes on to a port of the loopback address, and back.

    A cut differs from a pulled cable in that the kernel still acknowledges what is sent, up to a buffer's length: no
    connection ends by itself. New ones are taken and get no answer.

    Args:
        port: Where it listens, on 127.0.0.1.
        target_port: Where the server does.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self._target_port = target_port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self._flowing.clear()

    def mend(self) -> None:
        """Break what was connected through the cut, and let new connections pass."""
        if not self._flowing.is_set():
            for writer in self._writers:
                writer.transport.abort()
            self._flowing.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Listen for the time of the `async with`."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            self._flowing.set()
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            with contextlib.suppress(OSError):
                await self._connect(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(far_writer)
        try:
            there = asyncio.create_task(self._pump(reader, far_writer))
            back = asyncio.create_task(self._pump(far_reader, writer))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            far_writer.transport.abort()
            self._writers.discard(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
