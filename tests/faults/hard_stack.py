"""A Kafka and a MongoDB on which the hard faults can be injected.

Kafka's data lie on a small disk, a second listener of it stands behind a proxy, and MongoDB forgets soon.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dispatcher.local import LocalStack, ports
from tests.faults.small_disk import NotPermittedError, SmallDisk, mounted
from tests.faults.tcp_proxy import TcpProxy
from tests.mongo_support import SHORT_HISTORY

DISK_MEGABYTES = 512
SMALL_FILES = {
    "log.segment.bytes": str(4 * 1024 * 1024),
    # Index files are mapped into memory in full: a hole of them that can't be written ends the JVM by SIGBUS.
    "log.index.size.max.bytes": str(16 * 1024),
}


@dataclass(frozen=True, slots=True)
class HardStack:
    """The services and what can be done to them.

    Attributes:
        stack: Kafka and MongoDB.
        proxy: Before a second listener of Kafka.
        disk: Where Kafka's data are; None where no disk may be mounted.
        why_no_disk: One sentence then; else empty.
    """

    stack: LocalStack
    proxy: TcpProxy
    disk: SmallDisk | None
    why_no_disk: str = ""


@asynccontextmanager
async def open_hard_stack(
    start: Callable[..., Awaitable[LocalStack]], folder: Path, *, mongo: bool = True
) -> AsyncIterator[HardStack]:
    """Start the services.

    Args:
        start: Starts a local stack, as the fixture `local_stack_factory` does.
        folder: A fresh one.
        mongo: Whether MongoDB is needed, too.
    """
    disk, why = None, ""
    async with AsyncExitStack() as running:
        try:
            disk = await running.enter_async_context(mounted(folder / "disk", DISK_MEGABYTES))
        except NotPermittedError as error:
            why = str(error)
        taken: list[int] = []
        for _ in range(4):
            taken.append(ports.choose(avoid=taken))
        port, behind, controller, front = taken
        proxy = await running.enter_async_context(TcpProxy(front, behind).serving())
        properties = _properties(port, behind, controller, front)
        if disk is not None:
            properties |= {**SMALL_FILES, "log.dirs": str(disk.folder / "kafka")}
        stack = await start(mongo=mongo, kafka_port=port, kafka_properties=properties, mongo_args=SHORT_HISTORY)
        running.push_async_callback(stack.stop)
        yield HardStack(stack, proxy, disk, why)


def _properties(port: int, behind: int, controller: int, front: int) -> dict[str, str]:
    """Give Kafka a second listener, whose clients are sent to the proxy."""
    at = f"{ports.HOST}:{{}}".format
    return {
        "listeners": f"PLAINTEXT://{at(port)},PROXIED://{at(behind)},CONTROLLER://{at(controller)}",
        "advertised.listeners": f"PLAINTEXT://{at(port)},PROXIED://{at(front)}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@{at(controller)}",
    }
