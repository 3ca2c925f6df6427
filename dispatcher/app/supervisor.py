"""Runs a number of worker processes and starts again what dies.

A worker that keeps dying soon after its start is given up, and everything with it: whoever runs this process
then sees exit code 1 instead of a service that only looks alive.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

import structlog

_log = structlog.get_logger(__name__)
_LONGEST_LINE_BYTES = 65_536
_BAD_SETTINGS = 2


@dataclass(frozen=True, slots=True)
class SupervisorPolicy:
    """How patient the supervisor is; times in seconds.

    Attributes:
        first_delay_seconds: Before the first restart; doubled with each quick death in a row.
        longest_delay_seconds: Bound of that.
        stable_seconds: A worker that lived so long did not die quickly, and its count starts anew.
        quick_deaths: So many quick deaths in a row of one worker, and the supervisor gives up.
        grace_seconds: From SIGTERM to SIGKILL.
    """

    first_delay_seconds: float = 1.0
    longest_delay_seconds: float = 30.0
    stable_seconds: float = 60.0
    quick_deaths: int = 5
    grace_seconds: float = 25.0


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """One worker as it is now.

    Attributes:
        number: From 1; a replacement has the number of the one before.
        incarnation: Counts the processes of this number, from 1; 0 before the first.
        pid: Its process; None while none runs.
        metrics_port: The loopback port that it announced; None before.
    """

    number: int
    incarnation: int = 0
    pid: int | None = None
    metrics_port: int | None = None


class Supervisor:
    """Runs workers until it is stopped or gives up.

    Each worker is started as `command --worker-number K --control-fd F --parent-pid P`, in a process group of
    its own, so that a terminal's Ctrl-C reaches only the supervisor. See `dispatcher.app.child` for its side.

    Args:
        command: Program and arguments, such as `default_command()`.
        workers: How many, at least 1.
        policy: How patient to be.
        environ: The workers' environment; None: this process's.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        command: Sequence[str],
        workers: int,
        *,
        policy: SupervisorPolicy | None = None,
        environ: Mapping[str, str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy or SupervisorPolicy()
        self._stop = asyncio.Event()
        self._kill = asyncio.Event()
        self._outcome = 0
        self._slots = [
            _Slot(number, tuple(command), self._policy, environ, monotonic, self._stop, self._kill)
            for number in range(1, workers + 1)
        ]

    def workers(self) -> Sequence[WorkerProcess]:
        """Return the workers as they are now, by number."""
        return [slot.worker for slot in self._slots]

    def stop(self) -> None:
        """Begin to end: SIGTERM to every worker. Called a second time: SIGKILL."""
        if self._stop.is_set():
            self._kill.set()
        self._stop.set()

    async def run(self) -> int:
        """Run the workers; however this ends, none of them is left.

        Returns:
            0: stopped, and every worker ended in time. 1: a worker died again and again, or had to be killed.
            2: a worker found its settings wrong.
        """
        tasks = [asyncio.create_task(slot.run(), name=f"worker-{slot.worker.number}") for slot in self._slots]
        try:
            for finished in asyncio.as_completed(tasks):
                code = await finished
                if code and not self._outcome:
                    self._outcome = code
                if not self._stop.is_set():
                    self.stop()
        finally:
            self._stop.set()
            self._kill.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._outcome


def default_command(*arguments: str) -> tuple[str, ...]:
    """Return the command of a worker process with this interpreter, with more arguments behind it."""
    return (sys.executable, "-m", "dispatcher", "worker", *arguments)


def call_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` from the running loop at each SIGTERM and SIGINT that this process gets."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


class _Slot:
    """The place of one worker number, and the processes that fill it one after the other."""

    def __init__(
        self,
        number: int,
        command: tuple[str, ...],
        policy: SupervisorPolicy,
        environ: Mapping[str, str] | None,
        monotonic: Callable[[], float],
        stop: asyncio.Event,
        kill: asyncio.Event,
    ) -> None:
        self.worker = WorkerProcess(number)
        self._command = command
        self._policy = policy
        self._environ = environ
        self._monotonic = monotonic
        self._stop = stop
        self._kill = kill

    async def run(self) -> int:
        """Run processes one after the other; return 0 where stopped in order, else the supervisor's exit code."""
        quick_deaths = 0
        while not self._stop.is_set():
            started = self._monotonic()
            code = await self._one_process()
            if self._stop.is_set():
                return 1 if code == -signal.SIGKILL else 0
            if code == _BAD_SETTINGS:
                _log.error("worker found its settings wrong", worker=self.worker.number)
                return _BAD_SETTINGS
            lived = self._monotonic() - started
            quick_deaths = 0 if lived >= self._policy.stable_seconds else quick_deaths + 1
            told = {"worker": self.worker.number, "exit_code": code, "lived_seconds": round(lived, 1)}
            if quick_deaths >= self._policy.quick_deaths:
                _log.error("worker died again and again; giving up", quick_deaths=quick_deaths, **told)
                return 1
            delay = restart_delay_seconds(quick_deaths, self._policy)
            _log.warning(f"worker {self.worker.number} died; starting it again", delay_seconds=delay, **told)
            await _any_of(self._stop.wait(), timeout_seconds=delay)
        return 0

    async def _one_process(self) -> int:
        try:
            child = _Child(self.worker.number, self._command, self._environ, self._announced)
        except OSError as error:
            _log.error("worker can't be started", worker=self.worker.number, problem=str(error))
            return 1
        self.worker = WorkerProcess(self.worker.number, self.worker.incarnation + 1, child.pid)
        try:
            await _any_of(child.ended(), self._stop.wait())
            if not child.has_ended:
                child.send(signal.SIGTERM)
                await _any_of(child.ended(), self._kill.wait(), timeout_seconds=self._policy.grace_seconds)
            if not child.has_ended:
                _log.error("worker did not end in time; killing it", worker=self.worker.number, pid=child.pid)
                child.send(signal.SIGKILL)
            return await child.ended()
        finally:
            self.worker = WorkerProcess(self.worker.number, self.worker.incarnation)
            child.close()

    def _announced(self, message: Mapping[str, object]) -> None:
        port = message.get("metrics_port")
        if isinstance(port, int):
            self.worker = WorkerProcess(self.worker.number, self.worker.incarnation, self.worker.pid, port)


def restart_delay_seconds(quick_deaths: int, policy: SupervisorPolicy) -> float:
    """Say how long to wait before a restart, after so many quick deaths in a row."""
    doublings = min(max(quick_deaths - 1, 0), 30)
    return float(min(policy.first_delay_seconds * 2**doublings, policy.longest_delay_seconds))


class _Child:
    """One process, and the channel that it announces itself on."""

    def __init__(
        self,
        number: int,
        command: tuple[str, ...],
        environ: Mapping[str, str] | None,
        announced: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._announced = announced
        self._buffer = b""
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        arguments = ("--worker-number", str(number), "--control-fd", str(theirs.fileno()))
        try:
            # From the loop's own thread: the kernel's death signal follows the thread that started the child.
            self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                [*command, *arguments, "--parent-pid", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,
                env=None if environ is None else dict(environ),
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._channel, self._read)
        threading.Thread(target=self._wait, name=f"wait-{self.pid}", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    async def ended(self) -> int:
        """Wait for the end; return the exit code, or minus the signal."""
        return await asyncio.shield(self._ended)

    def send(self, number: int) -> None:
        if not self.has_ended:
            self._process.send_signal(number)

    def close(self) -> None:
        """Make sure that the process is gone, and let go of the channel."""
        self._process.kill()
        self._loop.remove_reader(self._channel)
        self._channel.close()

    def _wait(self) -> None:
        code = self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._note_end, code)
        except RuntimeError:
            return  # the loop is closed: nobody asks any more

    def _note_end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _read(self) -> None:
        try:
            data = self._channel.recv(_LONGEST_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._buffer) > _LONGEST_LINE_BYTES:
            self._loop.remove_reader(self._channel)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                self._announced(message)


async def _any_of(*waits: Coroutine[object, object, object], timeout_seconds: float | None = None) -> None:
    """Wait until one of these ends, or for the time."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
