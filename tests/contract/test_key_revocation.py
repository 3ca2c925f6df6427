"""A key that is revoked is refused within a second, by every API process and in every console session."""

import asyncio
import base64
import json
import os
import re
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

START_SECONDS = 60
WITHIN_SECONDS = 1.0
PAUSE_SECONDS = 0.05


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@dataclass
class Deployed:
    """Two API processes over one database, and the commands beside them."""

    environment: dict[str, str]
    addresses: list[str] = field(default_factory=list)

    async def command(self, *arguments):
        """Run a command of the dispatcher; gives what it printed."""
        process = await self.start(*arguments)
        printed, _ = await asyncio.wait_for(process.communicate(), START_SECONDS)
        assert process.returncode == 0
        return printed.decode()

    async def start(self, *arguments, **settings):
        """Start a command with further settings."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dispatcher",
            *arguments,
            env=self.environment | settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )

    async def make_key(self, scopes):
        """Make a key; gives its id and its text."""
        made = json.loads(await self.command("api-keys", "create", "--workspace", "acme", "--scope", scopes, "--json"))
        return made["id"], made["key"]

    @asynccontextmanager
    async def api(self):
        """Run an API process; gives its address once it answers."""
        port, metrics = free_port(), free_port()
        process = await self.start("api", DISPATCHER_API_PORT=str(port), DISPATCHER_METRICS_PORT=str(metrics))
        silent = asyncio.create_task(process.stdout.read())
        try:
            address = f"http://127.0.0.1:{port}"
            async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as client:
                while True:
                    try:
                        await client.get(f"{address}/v1/openapi.json")
                        break
                    except aiohttp.ClientError:
                        assert process.returncode is None, "the API process has ended"
                        await asyncio.sleep(0.05)
            yield address
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), START_SECONDS)
            await silent


@pytest.fixture
async def deployed(services, unique_name, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environment |= {
        "DISPATCHER_MONGO_URI": services.mongo_uri,
        "DISPATCHER_MONGO_DATABASE": unique_name("revoked"),
        "DISPATCHER_ENCRYPTION_KEYS": base64.b64encode(b"k" * 32).decode(),
        "DISPATCHER_LOCAL_DIR": str(tmp_path),
    }
    made = Deployed(environment)
    async with AsyncExitStack() as stack:
        made.addresses = list(await asyncio.gather(*(stack.enter_async_context(made.api()) for _ in range(2))))
        yield made


class Caller:
    """Uses a key again and again, and notes when each request began and whether it was let through."""

    def __init__(self, client, url):
        self.client = client
        self.url = url
        self.seen = []
        self._task = asyncio.create_task(self._call())

    async def _call(self):
        while True:
            began = time.monotonic()
            async with self.client.get(self.url, allow_redirects=False) as response:
                self.seen.append((began, response.status))
            await asyncio.sleep(PAUSE_SECONDS)

    async def until(self, condition, what):
        """Wait until what was seen meets a condition."""
        async with asyncio.timeout(START_SECONDS):
            while not condition(self.seen):
                assert not self._task.done(), self._task.result()
                await asyncio.sleep(0.01)

    async def stop(self):
        """Call no more."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self.client.close()


async def sign_in(address, key):
    """Sign a browser in; gives its session."""
    browser = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    page = await (await browser.get(f"{address}/console/sign-in")).text()
    token = re.search(r'name="token" value="([^"]+)"', page)[1]
    fields = {"token": token, "api_key": key}
    async with browser.post(f"{address}/console/sign-in", data=fields, allow_redirects=False) as response:
        assert response.headers["Location"] == "/console"
    return browser


@pytest.mark.parametrize("how", ["by the command", "by another key"])
async def test_a_revoked_key_is_refused_everywhere_within_a_second(deployed, how):
    """What begins a second after the revocation was acknowledged is refused, at both processes and in a session."""
    (key_id, key), (_, admin) = await asyncio.gather(deployed.make_key("read"), deployed.make_key("admin"))
    first, second = deployed.addresses
    bearer = {"Authorization": f"Bearer {key}"}
    callers = {
        "first": (Caller(aiohttp.ClientSession(headers=bearer), f"{first}/v1/webhooks"), 200, 401),
        "second": (Caller(aiohttp.ClientSession(headers=bearer), f"{second}/v1/webhooks"), 200, 401),
        "console": (Caller(await sign_in(second, key), f"{second}/console/webhooks"), 200, 303),
    }
    try:
        for name, (caller, _, _) in callers.items():
            await caller.until(lambda seen: len(seen) >= 5, f"{name} is let through")
        began = time.monotonic()
        if how == "by the command":
            await deployed.command("api-keys", "revoke", key_id)
        else:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {admin}"}) as client:
                assert (await client.delete(f"{first}/v1/api-keys/{key_id}")).status == 204
        revoked = time.monotonic()
        for name, (caller, allowed, refused) in callers.items():
            last = revoked + WITHIN_SECONDS
            await caller.until(lambda seen, last=last: seen[-1][0] >= last + 3 * PAUSE_SECONDS, f"{name} called later")
            assert {status for at, status in caller.seen if at < began} == {allowed}, name
            assert {status for at, status in caller.seen if at >= last} == {refused}, name
    finally:
        for caller, _, _ in callers.values():
            await caller.stop()
