"""One server process: started, waited for, ended."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import service
from dispatcher.local.identity import ProcessIdentity
from dispatcher.local.service import LocalService

SERVER = "print('up', flush=True); import time; time.sleep(60)"
BUSY = """
import threading, zlib
def work():
    while True: zlib.crc32(b"x" * 9**7)
for _ in range(20): threading.Thread(target=work, daemon=True).start()
"""
DEAF = "import signal; signal.signal(15, signal.SIG_IGN); " + SERVER


def states_of_threads(pid: int) -> set[str]:
    """Tell how a process's threads stand, by the kernel's letters."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {each.read_text().rpartition(")")[2].split()[0] for each in stats}


@pytest.fixture
async def make(tmp_path: Path):
    made = []

    def make(code: str = SERVER, **options: Any) -> LocalService:
        log_path = tmp_path / "logs" / "server.log"

        async def up(_: float) -> None:
            while "up" not in service.tail(log_path):
                await asyncio.sleep(0.01)

        options.setdefault("ready", up)
        made.append(
            LocalService("Server", [sys.executable, "-I", "-S", "-c", code], port=1, log_path=log_path, **options)
        )
        return made[-1]

    yield make
    for each in made:
        await each.kill()


async def test_service_tells_who_runs_and_who_no_longer_does(make) -> None:
    """A start tells the process's identity, an end tells None; starting twice and ending twice do nothing more."""
    told: list[ProcessIdentity | None] = []
    server = make(on_change=told.append)
    await server.stop()
    await server.start()
    await server.start()
    assert told == [ProcessIdentity.of(server.pid)]
    await server.stop()
    await server.stop()
    assert (told[1:], server.pid) == ([None], None)


async def test_paused_service_is_stopped_in_order_all_the_same(make) -> None:
    """A server that is frozen hears of the stop, tidies up and ends; it starts again afterwards."""
    server = make("import signal, sys; signal.signal(15, lambda *_: sys.exit(print('bye', flush=True))); " + SERVER)
    await server.start()
    server.pause()
    await server.stop()
    assert server.printed("bye")
    assert server.pid is None
    await server.start()
    assert server.pid is not None
    await server.kill()
    server.pause()
    server.resume()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the state of each thread")
async def test_paused_service_stands_when_pause_returns(make) -> None:
    """Each of a server's busy threads is stopped by then, not only told to."""
    server = make(BUSY + SERVER)
    await server.start()
    for _ in range(5):
        server.pause()
        assert states_of_threads(server.pid) == {"T"}
        server.resume()


async def test_deaf_service_is_killed_at_last(make) -> None:
    """A server that ignores SIGTERM is gone when stop returns."""
    server = make(DEAF, stop_seconds=0.05)
    await server.start()
    identity = ProcessIdentity.of(server.pid)
    await server.stop()
    assert not identity.is_alive()


async def test_service_that_ends_while_starting_shows_its_last_lines(make) -> None:
    """The error names the exit code, the log and its last lines, and only this start's."""
    server = make("print('old', flush=True); raise SystemExit(3)")
    with pytest.raises(LocalServiceError, match=r"Server ended while starting \(exit code 3\)"):
        await server.start()
    server.command = (
        *server.command[:-1],
        "print('Address already in use', flush=True); import os; os.kill(os.getpid(), 9)",
    )
    with pytest.raises(LocalServiceError, match="signal SIGKILL") as caught:
        await server.start()
    assert str(server.log_path) in str(caught.value)
    assert "Address already" in str(caught.value)
    assert "old" not in str(caught.value)
    assert server.printed("Address already in use")
    assert not server.printed("old")


async def test_service_that_never_serves_is_ended(make) -> None:
    """A start that takes too long, or whose check fails, leaves no process."""
    told: list[ProcessIdentity | None] = []

    async def never(_: float) -> None:
        await asyncio.Event().wait()

    async def fails(_: float) -> None:
        raise TimeoutError("no primary")

    slow = make("import time; time.sleep(60)", ready=never, start_seconds=0.1, on_change=told.append)
    with pytest.raises(LocalServiceError, match=r"did not serve within 0.1 s"):
        await slow.start()
    with pytest.raises(LocalServiceError, match=r"did not start \(no primary\)"):
        await make("import time; time.sleep(60)", ready=fails, on_change=told.append).start()
    first, _, second, _ = told
    assert not first.is_alive()
    assert not second.is_alive()


async def test_cancelled_start_leaves_no_process(make) -> None:
    """Ctrl-C while a server starts ends that server."""
    told: list[ProcessIdentity | None] = []
    entered = asyncio.Event()

    async def never(_: float) -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(make(ready=never, on_change=told.append).start())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told[-1] is None
    assert not told[0].is_alive()


async def test_run_says_what_failed(tmp_path: Path) -> None:
    """A command that fails, or takes too long, is told by what it was for."""
    python, log_path = [sys.executable, "-I", "-S", "-c"], tmp_path / "log"
    await service.run("greeting", [*python, "print('hello')"], log_path, timeout_seconds=30)
    with pytest.raises(LocalServiceError, match=r"greeting failed \(exit code 1\)(.|\n)*no voice"):
        await service.run("greeting", [*python, "raise SystemExit('no voice')"], log_path, timeout_seconds=30)
    with pytest.raises(LocalServiceError, match=r"greeting failed \(signal SIGKILL\)"):
        await service.run("greeting", [*python, "import time; time.sleep(60)"], log_path, timeout_seconds=0.1)


async def test_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that grew large is kept once under another name and begun anew."""
    monkeypatch.setattr(service, "_LOG_LIMIT_BYTES", 3)
    log_path = tmp_path / "log"
    log_path.write_text("long ago")
    await service.run("greeting", [sys.executable, "-I", "-S", "-c", "print('now')"], log_path, timeout_seconds=30)
    assert (tmp_path / "log.1").read_text() == "long ago"
    assert log_path.read_text() == "now\n"


def test_log_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    """A log in a place that can't be made is answered with its path."""
    (tmp_path / "file").touch()
    with pytest.raises(LocalServiceError, match="can't be written"):
        service.spawn(["true"], tmp_path / "file" / "log")


def test_unknown_signal_is_told_by_number() -> None:
    """An end by a signal without a name is told all the same."""
    assert service.describe_exit(-signal.SIGTERM) == "signal SIGTERM"
    assert service.describe_exit(-250) == "signal 250"
