"""The supervisor, over real processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from dispatcher.app.supervisor import Supervisor, SupervisorPolicy, call_on_signals, default_command

QUICK = SupervisorPolicy(first_delay_seconds=0.01, longest_delay_seconds=0.05, quick_deaths=5, grace_seconds=20)
DEADLINE_SECONDS = 30

WORKER = """
import os, signal, sys, time
from pathlib import Path
from dispatcher.app.child import join_supervisor

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
number = int(arguments["--worker-number"])
control = join_supervisor(int(arguments["--control-fd"]), int(arguments["--parent-pid"]), grace_seconds=0.5)
folder = Path(os.environ["WORKER_FOLDER"])

def note(what):
    partial = folder / f".{what}-{number}-{os.getpid()}"
    partial.write_text("")
    partial.rename(folder / f"{what}-{number}-{os.getpid()}")

def terminated(*_):
    note("terminated")
    sys.exit(0)
"""
STAYS = "signal.signal(signal.SIGTERM, terminated)\ncontrol.announce(metrics_port=9000 + number)\nnote('up')\n"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nnote('up')\n"
FOR_EVER = "while True: time.sleep(60)\n"


async def until(condition):
    """Wait for a condition; the deadline is far beyond what it takes."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


class Stage:
    """A folder in which worker scripts leave notes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environ = {**os.environ, "WORKER_FOLDER": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}

    def command(self, body):
        """Write a worker's script, and return the command that runs it."""
        script = self.folder / "worker.py"
        script.write_text(WORKER + body)
        return (sys.executable, str(script))

    def supervisor(self, body, workers=1, policy=QUICK):
        """Return a supervisor of workers with this script."""
        return Supervisor(self.command(body), workers, policy=policy, environ=self.environ)

    def notes(self, what):
        """Return (number, pid) of the workers that left this note."""
        return sorted(tuple(map(int, path.name.split("-")[1:])) for path in self.folder.glob(f"{what}-*"))


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_workers_run_with_their_numbers_and_announce_their_ports(stage):
    """Each worker has its number, its own process group and a known metrics port; stopping ends all in order."""
    supervisor = stage.supervisor(STAYS + FOR_EVER, workers=3)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: all(worker.metrics_port for worker in supervisor.workers()))
    await until(lambda: len(stage.notes("up")) == 3)
    workers = supervisor.workers()
    assert [(worker.number, worker.incarnation, worker.metrics_port) for worker in workers] == [
        (1, 1, 9001),
        (2, 1, 9002),
        (3, 1, 9003),
    ]
    assert all(os.getpgid(worker.pid) == worker.pid for worker in workers)
    supervisor.stop()
    assert await running == 0
    assert stage.notes("terminated") == [(worker.number, worker.pid) for worker in workers]


async def test_a_worker_that_dies_is_replaced_under_its_number(stage):
    """A killed worker's replacement has the same number, the next incarnation and a port of its own."""
    supervisor = stage.supervisor(STAYS + FOR_EVER, workers=2)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(stage.notes("up")) == 2)
    first, other = supervisor.workers()
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: len(stage.notes("up")) == 3)
    await until(lambda: supervisor.workers()[0].metrics_port == 9001)
    replaced, same = supervisor.workers()
    assert (replaced.number, replaced.incarnation) == (1, 2)
    assert replaced.pid != first.pid
    assert same == other
    supervisor.stop()
    assert await running == 0


async def test_a_worker_that_keeps_dying_is_given_up_and_the_others_are_ended(stage):
    """After so many quick deaths in a row the whole ends with exit code 1, and nobody is left."""
    body = "note('start')\nif number == 1: sys.exit(3)\n" + STAYS + FOR_EVER
    supervisor = stage.supervisor(body, workers=2)
    assert await asyncio.wait_for(supervisor.run(), DEADLINE_SECONDS) == 1
    starts = stage.notes("start")
    assert [number for number, _ in starts].count(1) == 5
    assert not any(alive(pid) for _, pid in starts)


async def test_a_worker_that_ends_by_itself_counts_as_dead(stage):
    """Exit code 0 without having been told to stop is no success either."""
    assert await asyncio.wait_for(stage.supervisor("note('start')\n").run(), DEADLINE_SECONDS) == 1
    assert len(stage.notes("start")) == 5


async def test_deaths_after_a_stable_time_are_never_given_up(stage):
    """A worker that lives long between deaths is started again for ever."""
    policy = SupervisorPolicy(first_delay_seconds=0.001, stable_seconds=0, quick_deaths=2)
    supervisor = stage.supervisor("note('start')\n", policy=policy)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(stage.notes("start")) >= 5)
    supervisor.stop()
    assert await running in {0, 1}


async def test_wrong_settings_are_not_tried_again(stage):
    """Exit code 2 of a worker becomes the supervisor's at once."""
    supervisor = stage.supervisor("note('start')\nsys.exit(2)\n")
    assert await asyncio.wait_for(supervisor.run(), DEADLINE_SECONDS) == 2
    assert len(stage.notes("start")) == 1


async def test_a_command_that_can_not_be_started_is_given_up():
    """A missing program ends in exit code 1, not in a traceback."""
    supervisor = Supervisor(("/nowhere/python",), 1, policy=QUICK)
    assert await asyncio.wait_for(supervisor.run(), DEADLINE_SECONDS) == 1


async def test_stopping_does_not_wait_for_a_restart(stage):
    """A worker that waits for its back-off is not started again once stopped."""
    policy = SupervisorPolicy(first_delay_seconds=3600, longest_delay_seconds=3600)
    supervisor = stage.supervisor("note('start')\nsys.exit(1)\n", policy=policy)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.workers()[0].incarnation == 1 and supervisor.workers()[0].pid is None)
    supervisor.stop()
    assert await asyncio.wait_for(running, DEADLINE_SECONDS) == 0
    assert len(stage.notes("start")) == 1


async def test_a_worker_that_ignores_sigterm_is_killed_after_the_grace_time(stage):
    """Stopping ends in bounded time, and says with exit code 1 that it had to be forced."""
    policy = SupervisorPolicy(grace_seconds=0.1)
    supervisor = stage.supervisor(STUBBORN + FOR_EVER, policy=policy)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: stage.notes("up"))
    supervisor.stop()
    assert await asyncio.wait_for(running, DEADLINE_SECONDS) == 1
    assert not alive(stage.notes("up")[0][1])


async def test_stopping_twice_kills_at_once(stage):
    """Whoever presses Ctrl-C again doesn't wait for the grace time."""
    policy = SupervisorPolicy(grace_seconds=3600)
    supervisor = stage.supervisor(STUBBORN + FOR_EVER, policy=policy)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: stage.notes("up"))
    supervisor.stop()
    supervisor.stop()
    assert await asyncio.wait_for(running, DEADLINE_SECONDS) == 1


async def test_a_cancelled_run_leaves_nobody():
    """However the run ends, its workers end with it, even such as know nothing of their supervisor."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    supervisor = Supervisor((sys.executable, "-c", deaf), 2, policy=QUICK)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: all(worker.pid for worker in supervisor.workers()))
    pids = [worker.pid for worker in supervisor.workers()]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not any(alive(pid) for pid in pids))


async def test_sense_and_nonsense_on_the_channel(stage):
    """What isn't a JSON object with a port is passed over, and announcing goes on."""
    said = [b'no json\n[1]\n{"metrics_port": "x"}\n{"metr', b'ics_port": 7}\n']
    body = f"for part in {said!r}: control.channel.sendall(part)\n"
    silent = STAYS.replace("control.announce(metrics_port=9000 + number)\n", "")
    supervisor = stage.supervisor(body + silent + FOR_EVER)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.workers()[0].metrics_port == 7)
    await until(lambda: stage.notes("up"))
    supervisor.stop()
    assert await running == 0


SUPERVISING = """
import asyncio, sys
from dispatcher.app.supervisor import Supervisor, call_on_signals

async def main():
    supervisor = Supervisor(sys.argv[1:], 2)
    call_on_signals(supervisor.stop)
    return await supervisor.run()

sys.exit(asyncio.run(main()))
"""


@pytest.fixture
def supervising(stage):
    """Start a process that supervises two workers; it is killed at the end of the test if need be."""
    started = []

    def start(body):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SUPERVISING), *stage.command(body)],
            env=stage.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_supervisor_ends_the_workers_in_order(stage, supervising, number):
    """SIGTERM and Ctrl-C reach every worker as SIGTERM, and the exit code is 0."""
    process = supervising(STAYS + FOR_EVER)
    await until(lambda: len(stage.notes("up")) == 2)
    process.send_signal(number)
    await until(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert stage.notes("terminated") == stage.notes("up")


async def test_workers_end_in_order_when_their_supervisor_is_killed(stage, supervising):
    """SIGKILL of the supervisor reaches the workers as SIGTERM."""
    process = supervising(STAYS + FOR_EVER)
    await until(lambda: len(stage.notes("up")) == 2)
    process.kill()
    await until(lambda: len(stage.notes("terminated")) == 2)
    await until(lambda: not any(alive(pid) for _, pid in stage.notes("up")))


async def test_stubborn_workers_end_as_well_when_their_supervisor_is_killed(stage, supervising):
    """A worker that does not end by itself after its supervisor's death is killed after its grace time."""
    process = supervising(STUBBORN + FOR_EVER)
    await until(lambda: len(stage.notes("up")) == 2)
    process.kill()
    await until(lambda: not any(alive(pid) for _, pid in stage.notes("up")))


async def test_a_worker_whose_parent_is_gone_before_it_looks_ends_at_once(stage):
    """A parent that dies while its child starts leaves no orphan."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = await asyncio.create_subprocess_exec(
            *stage.command("note('up')\n"),
            *("--worker-number", "1", "--control-fd", str(theirs.fileno()), "--parent-pid", str(os.getpid() + 1)),
            env=stage.environ,
            pass_fds=(theirs.fileno(),),
        )
        assert await process.wait() == 1
    assert stage.notes("up") == []


def test_the_default_command_is_this_interpreters_worker():
    """Workers run the same code as their supervisor."""
    assert default_command("--local") == (sys.executable, "-m", "dispatcher", "worker", "--local")


async def test_signals_of_this_process_call_stop():
    """`call_on_signals` hands each SIGTERM to the loop."""
    told = []
    call_on_signals(lambda: told.append("stop"))
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
