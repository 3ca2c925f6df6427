"""A worker as a process, or a program that ends in running one: started, killed, told to end, asked how it does."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

START_SECONDS = 40.0
WORKER = ("-m", "dispatcher", "worker")


class WorkerProcess:
    """One worker; its handle outlives it, so that it can be started again.

    Args:
        environment: Its settings, without their prefix; nothing else of `DISPATCHER_*` reaches it.
        command: What to give to Python in place of `-m dispatcher worker`: a program that ends in running it.
        variables: Further environment variables, by their whole names.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        command: Sequence[str] = WORKER,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.command = tuple(command)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        settings = {**environment, "METRICS_PORT": str(self.port), "LOG_FORMAT": "json"}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
        self._environment |= {f"DISPATCHER_{name}": value for name, value in settings.items()}
        self._environment |= variables
        self._output = tempfile.NamedTemporaryFile(prefix="worker-", suffix=".log")  # noqa: SIM115 - closed by close
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is not None:
            sys.stderr.write(f"--- the worker's last words ---\n{self.output()[-6000:]}\n")
        await self.close()

    async def close(self) -> None:
        """Kill it where it runs, and forget what it printed."""
        if self.runs:
            await self.kill()
        self._output.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """Its environment, for another process with the same settings."""
        return self._environment

    @property
    def runs(self) -> bool:
        """Whether it hasn't ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *, ready: bool = True) -> None:
        """Start it; wait until `/readyz` says so."""
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once, and needs no watcher of a loop
            [sys.executable, *self.command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent.parent,
        )
        if ready:
            await self.until_ready()

    async def until_ready(self, *, wanted: bool = True, seconds: float = START_SECONDS) -> None:
        """Wait until it is ready, or until it isn't."""
        deadline = time.monotonic() + seconds
        while (await self.ready()) is not wanted:
            assert self.runs or not wanted, f"the worker ended: {self.output()[-3000:]}"
            assert time.monotonic() < deadline, f"ready is not {wanted} within {seconds} s: {self.output()[-3000:]}"
            await asyncio.sleep(0.05)

    async def ready(self) -> bool:
        """Whether `/readyz` answers 200."""
        return (await asyncio.to_thread(self._get, "/readyz"))[0] == 200

    async def metric(self, name: str) -> float:
        """Add up a metric's samples."""
        _, page = await asyncio.to_thread(self._get, "/metrics")
        lines = [line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def pause(self) -> None:
        """Let it stand still, all connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def ended(self, seconds: float) -> int:
        """Wait for its end; gives the exit code, or minus the signal."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while self.runs:
            assert time.monotonic() < deadline, f"the worker runs after {seconds} s: {self.output()[-3000:]}"
            await asyncio.sleep(0.02)
        return self._process.wait()

    def output(self) -> str:
        """What it has printed so far; nothing once it was closed."""
        return "" if self._output.closed else Path(self._output.name).read_text(errors="replace")

    def said(self, words: str) -> list[dict[str, object]]:
        """Find the lines of its log whose text holds these words."""
        lines = [line for line in self.output().splitlines() if words in line and line.startswith("{")]
        return [json.loads(line) for line in lines]

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""
