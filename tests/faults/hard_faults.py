"""Faults that reach into a worker or the machine: chosen moments, clocks, lost history, full disks, cut networks."""

import asyncio

from tests.deployment import eventually
from tests.faults.small_disk import SmallDisk
from tests.faults.soak.faults import END_SECONDS, SERVICE_SECONDS, WORKER_SECONDS, process_of
from tests.faults.soak.rig import Rig
from tests.faults.tcp_proxy import TcpProxy
from tests.worker_process import WorkerProcess

REACHED_SECONDS = 60.0
FULL_SECONDS = 60.0
LOST = "change stream lost; loading all webhooks again"
LOADED = "webhooks loaded"


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
