"""Faults that reach into a worker or the machine: chosen moments, clocks, lost history, full disks, cut networks."""

import asyncio
import random
import signal
from functools import partial

from tests.deployment import eventually, until
from tests.faults.fault_plan import FaultPlan, KillPoint
from tests.faults.hard_stack import HardStack
from tests.faults.small_disk import SmallDisk
from tests.faults.soak.fault import FaultMaker
from tests.faults.soak.faults import END_SECONDS, SERVICE_SECONDS, WORKER_SECONDS, process_of
from tests.faults.soak.rig import Rig
from tests.faults.tcp_proxy import TcpProxy
from tests.mongo_support import overwrite_history, resume_token
from tests.worker_process import WorkerProcess

REACHED_SECONDS = 60.0
FULL_SECONDS = 90.0
CUT_SECONDS = 10.0
"""The session of a rig's workers lasts 6."""
KILLS: tuple[tuple[KillPoint, int], ...] = (("log", 7), ("produced", 7), ("commit", 3))
JUMPS_SECONDS = (30, -30, 3600, -3600)
LOST = "change stream lost; loading all webhooks again"


class DiskFull:
    """Kafka's disk is filled until it stops; then there is room again, and it is started."""

    name = "broker's disk full"
    recovery_seconds = SERVICE_SECONDS

    def __init__(self, disk: SmallDisk) -> None:
        self._disk = disk

    async def inject(self, rig: Rig) -> None:
        """Fill it."""
        kafka = process_of(rig, "kafka")

        async def ended() -> bool:
            await asyncio.to_thread(self._disk.fill)
            return kafka.pid is None

        await eventually(ended, bool, "Kafka stops for want of room", FULL_SECONDS)
        for worker in rig.workers:
            await worker.until_ready(wanted=False)

    async def undo(self, rig: Rig) -> None:
        """Make room, and start it."""
        await asyncio.to_thread(self._disk.free)
        await process_of(rig, "kafka").start()


class NetworkCut:
    """A further worker is cut off from Kafka for longer than its session lasts; the others go on in its place."""

    recovery_seconds = WORKER_SECONDS

    def __init__(self, proxy: TcpProxy, seconds: float) -> None:
        self.name = f"worker cut off from Kafka for {seconds:g} s"
        self._proxy = proxy
        self._seconds = seconds
        self._guest: WorkerProcess | None = None

    async def inject(self, rig: Rig) -> None:
        """Cut it off once it takes part."""
        self._guest = rig.worker(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{self._proxy.port}")
        await self._guest.start()
        await _takes_part(self._guest)
        others = [await _taken(each) for each in rig.workers]
        self._proxy.cut()
        await asyncio.sleep(self._seconds)
        await self._guest.until_ready(wanted=False)
        for worker, before in zip(rig.workers, others, strict=True):
            assert await _taken(worker) > before

    async def undo(self, rig: Rig) -> None:
        """Mend it: the worker takes part again, and leaves."""
        self._proxy.mend()
        guest, self._guest = self._guest, None
        if guest is None or not guest.runs:
            return
        try:
            await guest.until_ready()
            await _takes_part(guest)
            guest.terminate()
            assert await guest.ended(END_SECONDS) == 0, guest.output()[-3000:]
        finally:
            if guest.runs:
                await rig.kill(guest)


async def _taken(worker: WorkerProcess) -> float:
    return await worker.metric("dispatcher_events_total")


async def _takes_part(worker: WorkerProcess) -> None:
    before = await _taken(worker)
    await eventually(lambda: _taken(worker), lambda now: now > before, "the worker takes events up")


class WorkerKilledAt:
    """A worker kills itself at a chosen point of its work."""

    recovery_seconds = WORKER_SECONDS

    def __init__(self, chance: random.Random, point: KillPoint, count: int) -> None:
        self.name = f"worker killed at point `{point}`, number {count}"
        self._point: KillPoint = point
        self._count = count
        self._which = chance.random()
        self._worker: WorkerProcess | None = None
        self._plan: FaultPlan | None = None

    async def inject(self, rig: Rig) -> None:
        """Wait for its end."""
        self._worker, self._plan = await _faulty(rig, int(self._which * len(rig.workers)))
        self._plan.kill_at(self._point, self._count)
        assert await self._worker.ended(REACHED_SECONDS) == -signal.SIGKILL
        await rig.note_unsettled()
        await rig.check()

    async def undo(self, rig: Rig) -> None:
        """Start it again."""
        if self._plan is not None:
            self._plan.spare(self._point)
        if self._worker is not None and not self._worker.runs:
            await self._worker.start(ready=False)


class ProducesRefused:
    """No worker can produce to the first delay topic or the dead-letter topic, for long enough to be unready."""

    name = "produces of retries and dead letters refused"
    recovery_seconds = WORKER_SECONDS

    def __init__(self) -> None:
        self._plans: list[FaultPlan] = []

    async def inject(self, rig: Rig) -> None:
        """Refuse them."""
        names = rig.deployment.names
        made = [await _faulty(rig, number) for number in range(len(rig.workers))]
        self._plans = [plan for _, plan in made]
        for plan in self._plans:
            plan.refuse(names.retry(names.tiers[0]), names.dead_letter)
        for worker in rig.workers:
            await worker.until_ready(wanted=False)
        await rig.check()

    async def undo(self, rig: Rig) -> None:
        """Take them again."""
        for plan in self._plans:
            plan.refuse()


class ClockJumps:
    """The clock of one worker is off for a while, and then right again."""

    recovery_seconds = WORKER_SECONDS

    def __init__(self, chance: random.Random, jump_seconds: float, seconds: float = 5.0) -> None:
        self.name = f"worker's clock off by {jump_seconds:+g} s"
        self._jump_seconds = jump_seconds
        self._seconds = seconds
        self._which = chance.random()
        self._plan: FaultPlan | None = None

    async def inject(self, rig: Rig) -> None:
        """Let it jump."""
        _, self._plan = await _faulty(rig, int(self._which * len(rig.workers)))
        self._plan.shift_clock(self._jump_seconds)
        await asyncio.sleep(self._seconds)

    async def undo(self, rig: Rig) -> None:
        """Let it jump back."""
        if self._plan is not None:
            self._plan.shift_clock(0)


class HistoryOverrun:
    """All workers stand still until MongoDB has forgotten where they were."""

    name = "change stream's history overwritten"
    recovery_seconds = WORKER_SECONDS

    def __init__(self) -> None:
        self._stopped: list[tuple[WorkerProcess, int]] = []

    async def inject(self, rig: Rig) -> None:
        """Stop them and write until it is so."""
        for worker in rig.workers:
            worker.pause()
            self._stopped.append((worker, len(worker.said(LOST))))
        connection = rig.deployment.connection
        await overwrite_history(connection, await resume_token(connection))

    async def undo(self, rig: Rig) -> None:
        """Let them go on: each loads all webhooks again."""
        for worker, _ in self._stopped:
            worker.resume()
        for worker, before in self._stopped:
            await until(lambda worker=worker, before=before: len(worker.said(LOST)) > before, "the worker loads again")


def hard_faults(hard: HardStack) -> tuple[FaultMaker, ...]:
    """Give what makes each of these faults, on these services; without a small disk its fault is left out."""
    makers: list[FaultMaker] = [
        *(partial(WorkerKilledAt, point=point, count=count) for point, count in KILLS),
        *(partial(ClockJumps, jump_seconds=seconds) for seconds in JUMPS_SECONDS),
        lambda _: ProducesRefused(),
        lambda _: HistoryOverrun(),
        lambda _: NetworkCut(hard.proxy, CUT_SECONDS),
    ]
    if (disk := hard.disk) is not None:
        makers.append(lambda _: DiskFull(disk))
    return tuple(makers)


async def _faulty(rig: Rig, number: int) -> tuple[WorkerProcess, FaultPlan]:
    """Give one of the rig's workers as one with faults built in; where it wasn't it is ended and started as one."""
    worker = rig.workers[number]
    folder = rig.stack.folder / "faults" / str(number)
    plan = FaultPlan(folder)
    if worker.command != plan.command:
        folder.mkdir(parents=True, exist_ok=True)
        worker.terminate()
        assert await worker.ended(END_SECONDS) == 0, worker.output()[-3000:]
        worker.command = plan.command
        await worker.start()
    return worker, plan
