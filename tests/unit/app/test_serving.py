"""Who holds connections without sending requests holds them for a bounded time, and never keeps others out."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from dispatcher.app import serving
from dispatcher.app.serving import Listener, listen
from dispatcher.core.errors import SettingsError

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def release():
    return asyncio.Event()


@asynccontextmanager
async def served(release):
    """Serve `/`, which answers at once, and `/slow`, which answers when it is let; gives the port."""

    async def at_once(_request):
        return web.Response(text="here")

    async def slow(_request):
        await release.wait()
        return web.Response(text="late")

    app = web.Application()
    app.router.add_get("/", at_once)
    app.router.add_get("/slow", slow)
    async with listen(app, Listener("127.0.0.1", 0)) as port:
        yield port


class Client:
    """One connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port, first=b""):
        """Connect, and send something."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(first)
        return client

    async def ask(self, request=GET):
        """Send a request and read the answer's text."""
        self.writer.write(request)
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        assert head.startswith(b"HTTP/1.1 200"), head
        return await asyncio.wait_for(self.reader.readexactly(4), 20)

    async def ended(self):
        """Wait until the server has closed it."""
        with contextlib.suppress(ConnectionError):  # what was sent after its end is answered so
            await asyncio.wait_for(self.reader.read(), 20)
        self.writer.close()

    @property
    def is_over(self):
        """Whether the server has closed it."""
        return self.reader.at_eof()


async def test_half_open_heads_keep_nobody_out(release, monkeypatch):
    """Beyond the bound the connection that was silent for longest ends; whoever sends requests stays and is served."""
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 20)
    async with served(release) as port:
        healthy = await Client.connect(port)
        hostile = []
        for number in range(200):
            hostile.append(await Client.connect(port, b"GET / HTTP/1.1\r\nHos"))
            if number % 10 == 0:
                assert await healthy.ask() == b"here"
        assert await (await Client.connect(port)).ask() == b"here"
        for client in hostile[:150]:
            await client.ended()
        assert await healthy.ask() == b"here"
        assert not healthy.is_over


async def test_an_answer_that_is_being_made_is_not_cut_off(release, monkeypatch):
    """A connection that must go while its request is served goes after the answer."""
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 5)
    async with served(release) as port:
        busy = await Client.connect(port)
        answer = asyncio.create_task(busy.ask(GET.replace(b"/ ", b"/slow ")))
        await asyncio.sleep(0)
        others = [await Client.connect(port) for _ in range(20)]
        assert await others[-1].ask() == b"here"
        release.set()
        assert await answer == b"late"
        await busy.ended()


async def test_half_of_the_open_files_are_for_others(release, monkeypatch):
    """The bound is lower where the system allows few files, so that the database can still be reached."""
    monkeypatch.setattr(serving, "open_files_allowed", lambda: 10)
    async with served(release) as port:
        clients = [await Client.connect(port) for _ in range(8)]
        assert await clients[-1].ask() == b"here"
        for client in clients[:3]:
            await client.ended()
        for client in clients[3:]:
            assert await client.ask() == b"here"


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "])
async def test_a_silent_connection_ends(release, monkeypatch, first):
    """Neither a connection without a request nor half a head is kept."""
    monkeypatch.setattr(serving, "SILENT_SECONDS", 0.2)
    async with served(release) as port:
        await (await Client.connect(port, first)).ended()


async def test_a_dripping_head_ends(release, monkeypatch):
    """A byte now and then keeps no connection, neither for its first request nor for a later one."""
    monkeypatch.setattr(serving, "SILENT_SECONDS", 0.3)
    async with served(release) as port:
        for asks_first in (False, True):
            client = await Client.connect(port)
            if asks_first:
                assert await client.ask() == b"here"
            client.writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
            ended = asyncio.create_task(client.ended())
            while not ended.done():
                client.writer.write(b"a")
                await asyncio.wait({ended}, timeout=0.02)
            await ended


async def test_an_idle_connection_ends(release, monkeypatch):
    """After its answer a connection is kept for a bounded time."""
    monkeypatch.setattr(serving, "SILENT_SECONDS", 0.2)
    async with served(release) as port:
        client = await Client.connect(port)
        assert await client.ask() == b"here"
        await client.ended()


def test_a_proxy_s_minute_is_outlasted():
    """A reverse proxy's connection isn't closed under the request that it sends just then."""
    assert serving.SILENT_SECONDS > 60


async def test_a_taken_port_is_said_so(release):
    """Whoever starts a second one learns what to do."""
    async with served(release) as port:
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} can't be listened on"):
            async with listen(web.Application(), Listener("127.0.0.1", port)):
                pass
