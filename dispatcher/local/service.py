"""One server process of the local stack: started, waited for, paused, stopped, started again."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import launcher
from dispatcher.local.identity import ProcessIdentity

_PAUSE_SECONDS = 0.03
_LOOK_SECONDS = 0.001
_STANDING_SECONDS = 5.0
_TAIL_LINES = 15
_LOG_LIMIT_BYTES = 20_000_000


class LocalService:
    """A server process that ends with this one.

    Its handle outlives the process: after `stop` or `kill`, `start` runs the same command on the same port and
    data. Start it from a thread that lasts as long as the server shall.

    Args:
        name: The server's name in messages.
        command: The program's path and its arguments.
        port: Where the server listens on the loopback address.
        log_path: Takes what the server prints; appended to.
        ready: Returns once the server serves, within the seconds it is given.
        on_change: Told who runs now, before `start` waits; None after an end.
        environment: Variables to add.
        start_seconds: How long the server may take to serve.
        stop_seconds: How long it may take over SIGTERM before SIGKILL follows.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        log_path: Path,
        ready: Callable[[float], Awaitable[None]],
        on_change: Callable[[ProcessIdentity | None], None] = lambda _: None,
        environment: Mapping[str, str] | None = None,
        start_seconds: float = 120.0,
        stop_seconds: float = 20.0,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.port = port
        self.log_path = log_path
        self._ready = ready
        self._on_change = on_change
        self._environment = dict(environment or {})
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Start the server and return once it serves; nothing happens where it runs.

        Raises:
            LocalServiceError: it ended or didn't serve in time; the text shows the log's last lines. No process
                is left then.
        """
        if self.pid is not None:
            return
        self._process, self._log_start = spawn(self.command, self.log_path, self._environment)
        self._on_change(ProcessIdentity.of(self._process.pid))
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            self._process.kill()
            self._process.wait()
            self._on_change(None)
            raise

    async def stop(self) -> None:
        """Ask the server to end, wait, and insist at last; nothing happens where it doesn't run."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End the server at once, without a chance to tidy up."""
        await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: its connections stay open and nothing answers.

        Returns when it stands (on Linux): the signal is taken by one of its threads, and the others work until then.

        Raises:
            LocalServiceError: It didn't stand in time.
        """
        self._send(signal.SIGSTOP)
        deadline = time.monotonic() + _STANDING_SECONDS
        while self.pid is not None and _works(self.pid):
            if time.monotonic() > deadline:
                raise LocalServiceError(f"{self.name} goes on {_STANDING_SECONDS:g} s after it was told to stand still")
            time.sleep(_LOOK_SECONDS)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._send(signal.SIGCONT)

    def printed(self, text: str) -> bool:
        """Say whether the server's output since its last start holds this text."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(self._log_start)
                return text.encode() in file.read()
        except OSError:
            return False

    async def _end(self, first: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        try:
            self._send(first)
            self._send(signal.SIGCONT)  # a paused server would take no notice
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_seconds):
                    await _wait_until_ended(process)
        finally:  # also when cancelled: nothing may stay behind
            if process.poll() is None:
                process.kill()
            process.wait()
            self._process = None
            self._on_change(None)

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        ready = asyncio.ensure_future(self._ready(self._start_seconds))
        ended = asyncio.ensure_future(_wait_until_ended(process))
        try:
            await asyncio.wait({ready, ended}, timeout=self._start_seconds, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and ready.exception() is None and process.poll() is None:
                return
            raise LocalServiceError(self._why_not_up(process, ready))
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    def _why_not_up(self, process: subprocess.Popen[bytes], ready: "asyncio.Future[None]") -> str:
        code = process.poll()
        if code is not None:
            what = f"ended while starting ({describe_exit(code)})"
        elif ready.done():
            what = f"did not start ({ready.exception()})"
        else:
            what = f"did not serve within {self._start_seconds:g} s"
        return f"{self.name} {what}; the last lines of {self.log_path}:\n{tail(self.log_path, since=self._log_start)}"

    def _send(self, number: signal.Signals) -> None:
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)


def _works(pid: int) -> bool:
    """Say whether a thread of a process isn't stopped; where the system doesn't tell, none is."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if stat.read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return True
    return False


def spawn(
    command: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command that ends with this process, its output in a log file.

    Args:
        command: The program's path and its arguments.
        log_path: Appended to; made with its folder where missing, put aside as `.1` where it grew large.
        environment: Variables to add.

    Returns:
        The process, and the log's length in bytes before it.

    Raises:
        LocalServiceError: the log can't be written.
    """
    try:
        log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_name(log_path.name + ".1"))
        log = log_path.open("ab")
    except OSError as error:
        raise LocalServiceError(f"the log {log_path} can't be written ({error.strerror})") from error
    with log:
        process = subprocess.Popen(  # noqa: S603  # our own launcher with a list: no shell reads it
            [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=log_path.parent,
            env={**os.environ, **(environment or {})},
        )
        return process, log.tell()


async def run(what: str, command: Sequence[str], log_path: Path, *, timeout_seconds: float) -> None:
    """Run a command to its end.

    Args:
        what: What the command does, for the message of its failure.
        command: The program's path and its arguments.
        log_path: Takes what it prints; appended to.
        timeout_seconds: How long it may take.

    Raises:
        LocalServiceError: it failed or took longer; the text shows the log's last lines.
    """
    process, log_start = spawn(command, log_path)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await _wait_until_ended(process)
    finally:
        if process.poll() is None:
            process.kill()
        code = process.wait()
    if code != 0:
        text = tail(log_path, since=log_start)
        raise LocalServiceError(f"{what} failed ({describe_exit(code)}); the last lines of {log_path}:\n{text}")


def tail(path: Path, *, since: int = 0, lines: int = _TAIL_LINES) -> str:
    """Give a text file's last lines, from a byte offset on; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            return "\n".join(deque((line.decode(errors="replace").rstrip() for line in file), maxlen=lines))
    except OSError:
        return ""


def describe_exit(code: int) -> str:
    """Say how a process ended, from the number that `subprocess` gives."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


async def _wait_until_ended(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:  # noqa: ASYNC110  # asked, not told: no loop's child watcher is relied on
        await asyncio.sleep(_PAUSE_SECONDS)
