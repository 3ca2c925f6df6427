"""What happens to workers, Kafka, MongoDB and endpoints."""

import asyncio
import random
import signal
from typing import Literal

from dispatcher.local.service import LocalService
from tests.faults.soak.rig import Rig
from tests.worker_process import WorkerProcess

END_SECONDS = 25.0
WORKER_SECONDS = 90.0
"""Within so much after a death a worker has started, on a busy machine, and the group has noticed."""
SERVICE_SECONDS = 90.0

Service = Literal["kafka", "mongo"]
_NAMES = {"kafka": "broker", "mongo": "mongod"}


class WorkerEnded:
    """One worker is killed, or told to end, at a random moment.

    Args:
        chance: Draws which and when.
        told: SIGTERM instead of SIGKILL: it must end with exit code 0 in time.
    """

    recovery_seconds = WORKER_SECONDS

    def __init__(self, chance: random.Random, *, told: bool) -> None:
        self.name = "worker told to end (SIGTERM)" if told else "worker killed (SIGKILL)"
        self._told = told
        self._pause_seconds = chance.uniform(0, 1.5)
        self._which = chance.random()
        self._worker: WorkerProcess | None = None

    async def inject(self, rig: Rig) -> None:
        """End it."""
        await asyncio.sleep(self._pause_seconds)
        self._worker = rig.workers[int(self._which * len(rig.workers))]
        if self._told:
            self._worker.terminate()
            assert await self._worker.ended(END_SECONDS) == 0, self._worker.output()[-3000:]
        else:
            await rig.kill(self._worker)
        await rig.check()

    async def undo(self, rig: Rig) -> None:
        """Start it again."""
        if self._worker is not None and not self._worker.runs:
            await self._worker.start(ready=False)


class ServiceRestarted:
    """Kafka or MongoDB is stopped, or killed, stays away for some seconds, and is started again."""

    recovery_seconds = SERVICE_SECONDS

    def __init__(self, service: Service, *, killed: bool = False, away_seconds: float = 2.0) -> None:
        self.name = f"{_NAMES[service]} {'killed (SIGKILL)' if killed else 'stopped'} and started"
        self._service: Service = service
        self._killed = killed
        self._away_seconds = away_seconds

    async def inject(self, rig: Rig) -> None:
        """End it and wait."""
        process = process_of(rig, self._service)
        await (process.kill() if self._killed else process.stop())
        await asyncio.sleep(self._away_seconds)

    async def undo(self, rig: Rig) -> None:
        """Start it again."""
        await process_of(rig, self._service).start()


class ServiceFrozen:
    """Kafka or MongoDB keeps its connections open and answers nothing for a while."""

    recovery_seconds = SERVICE_SECONDS

    def __init__(self, service: Service, seconds: float) -> None:
        self.name = f"{_NAMES[service]} frozen for {seconds:g} s"
        self._service: Service = service
        self._seconds = seconds

    async def inject(self, rig: Rig) -> None:
        """Freeze it and wait."""
        process_of(rig, self._service).pause()
        await asyncio.sleep(self._seconds)

    async def undo(self, rig: Rig) -> None:
        """Let it go on."""
        process_of(rig, self._service).resume()


class WorkersComeAndGo:
    """Every second a further worker is started, or one of those is told to end: up to three at a time."""

    recovery_seconds = WORKER_SECONDS
    at_most = 3

    def __init__(self, chance: random.Random, seconds: float) -> None:
        self.name = f"workers join and leave each second for {seconds:g} s"
        self._chance = chance
        self._seconds = seconds
        self._guests: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []

    async def inject(self, rig: Rig) -> None:
        """Start some, end some."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        while asyncio.get_running_loop().time() < deadline:
            may_join = len(self._guests) + sum(each.runs for each in self._leaving) < self.at_most
            if may_join and (not self._guests or self._chance.random() < 0.5):
                guest = rig.worker()
                await guest.start(ready=False)
                self._guests.append(guest)
            elif self._guests:
                self._leave(self._guests.pop(0))
            await asyncio.sleep(1)

    async def undo(self, rig: Rig) -> None:
        """Let all guests leave: each ends as it should."""
        while self._guests:
            self._leave(self._guests.pop())
        for each in self._leaving:
            code = await each.ended(END_SECONDS)
            # Before it has a handler for it, SIGTERM ends it at once: it has joined nothing then.
            assert code in {0, -signal.SIGTERM}, f"a worker that was told to end gave {code}: {each.output()[-3000:]}"

    def _leave(self, guest: WorkerProcess) -> None:
        guest.terminate()
        self._leaving.append(guest)


class EndpointsHang:
    """No endpoint answers anything, for longer than a worker may go without polling: no worker loses anything by it."""

    excuses_repeats = False
    recovery_seconds = SERVICE_SECONDS

    def __init__(self, seconds: float) -> None:
        self.name = f"all endpoints hang for {seconds:g} s"
        self._seconds = seconds

    async def inject(self, rig: Rig) -> None:
        """Let them hang."""
        rig.endpoints.hang = True
        await asyncio.sleep(self._seconds)

    async def undo(self, rig: Rig) -> None:
        """Let them answer what comes from now on."""
        rig.endpoints.hang = False


def process_of(rig: Rig, service: Service) -> LocalService:
    """Give the handle of a service's process."""
    process = rig.stack.kafka_process if service == "kafka" else rig.stack.mongo_process
    assert process is not None
    return process
