"""`dispatcher run --local`, as a newcomer uses it: real processes, real services, the printed lines."""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest

START_SECONDS = 90
SOON_SECONDS = 20


class Running:
    """A running `dispatcher run` and what it printed."""

    def __init__(self, process, environ):
        self.process = process
        self.environ = environ
        self.lines = []

    async def until_line(self, pattern, within=START_SECONDS):
        """Read the output until a line matches; return the match."""
        async with asyncio.timeout(within):
            while line := await self.process.stdout.readline():
                self.lines.append(line.decode().rstrip())
                if found := re.search(pattern, self.lines[-1]):
                    return found
        raise AssertionError("\n".join(self.lines))

    async def greeting(self):
        """Return API address, metrics address and key once everything is up."""
        api = (await self.until_line(r"^  API +(http\S+)$"))[1]
        metrics = (await self.until_line(r"^  Metrics +(http\S+)/metrics$"))[1]
        key = (await self.until_line(r"^  API key +(whk_\S+)$"))[1]
        await self.until_line("Ctrl-C stops")
        return api, metrics, key

    async def command(self, *arguments):
        """Run another command of the console script, as in a second terminal; return its output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dispatcher", *arguments, env=self.environ, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()


@asynccontextmanager
async def run_local(folder, *arguments):
    """Start `dispatcher run --local` with its data in a folder; end it and what it left, whatever happened."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environ |= {"DISPATCHER_LOCAL_DIR": str(folder), "DISPATCHER_KAFKA_SESSION_TIMEOUT_MS": "6000"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", "run", "--local", *arguments,
        env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        limit=2**20,
    )  # fmt: skip
    family = []
    try:
        yield Running(process, environ)
    finally:
        if process.returncode is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                await asyncio.wait_for(process.communicate(), 40)
            except TimeoutError:
                process.kill()
        for left in family:
            if left.is_running():
                left.kill()


async def eventually(check, within=SOON_SECONDS):
    """Wait until an async check gives something true, and return it."""
    async with asyncio.timeout(within):
        while not (found := await check()):
            await asyncio.sleep(0.1)
    return found


@pytest.fixture
async def endpoint():
    """A receiver on loopback: its address, and the bodies that arrived."""
    bodies = []

    async def take(request):
        bodies.append(await request.json())
        return aiohttp.web.Response()

    app = aiohttp.web.Application()
    app.router.add_post("/hook", take)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", bodies
    await runner.cleanup()


async def test_the_printed_lines_work_and_everything_survives_kills(tmp_path, endpoint):
    """What `run` prints delivers events, also after a worker was killed and after SIGKILL of the whole on kept data."""
    url, bodies = endpoint
    async with run_local(tmp_path, "--workers", "2") as running, aiohttp.ClientSession() as session:
        api, metrics, key = await running.greeting()
        headers = {"Authorization": f"Bearer {key}"}
        body = {"url": url, "events": ["user.*"]}
        async with session.post(f"{api}/webhooks", json=body, headers=headers) as response:
            assert response.status == 201
            webhook = await response.json()
        await asyncio.sleep(1)  # what the product promises: one second after the 201, an event is delivered
        await running.command("publish", "--type", "user.created")
        await eventually(lambda: _true(len(bodies) == 1))

        workers = [
            child for child in psutil.Process(running.process.pid).children() if "worker" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        workers[0].kill()

        async def restarted():
            async with session.get(f"{metrics}/metrics") as page:
                return re.search(r"worker_restarts_total\{worker=\"\d\"\} 1", await page.text())

        await eventually(restarted)

        async def ready():
            async with session.get(f"{metrics}/readyz") as answer:
                return answer.status == 200

        await eventually(ready)
        await running.command("publish", "--type", "user.created", "--count", "20")
        await eventually(lambda: _true(len({each["id"] for each in bodies}) == 21))

        family = psutil.Process(running.process.pid).children(recursive=True)
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()
        await eventually(lambda: _true(not any(_lives(child) for child in family)), within=40)

    async with run_local(tmp_path) as again, aiohttp.ClientSession() as session:
        api, _, same_key = await again.greeting()
        assert same_key == key
        listing = f"{api}/webhooks/{webhook['id']}/deliveries"
        await again.command("publish", "--type", "user.deleted", "--data", json.dumps({"n": 1}))
        await eventually(lambda: _true(bodies[-1]["data"] == {"n": 1}))

        async def logged():
            async with session.get(listing, headers={"Authorization": f"Bearer {key}"}) as response:
                rows = (await response.json())["data"]
            return len(rows) == 22 and {row["status"] for row in rows} == {"delivered"}

        await eventually(logged)
        again.process.terminate()
        assert await asyncio.wait_for(again.process.wait(), 40) == 0


async def _true(value):
    return value


def _lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def test_commands_without_a_stack_say_so_in_a_sentence(tmp_path):
    """With no address configured and no stack running, a command ends with exit code 2 and names what to do."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", "publish", "--type", "user.created",
        env=environ | {"DISPATCHER_LOCAL_DIR": str(tmp_path)}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 2
    assert "no local Kafka runs" in err.decode()
