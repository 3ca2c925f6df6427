"""A real Kafka and a real MongoDB under one data folder: started together, found again, stopped in order."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import broker, mongod, ports
from dispatcher.local.classpath import KAFKA_VERSION, KafkaClasspath
from dispatcher.local.identity import ProcessIdentity
from dispatcher.local.java import find_java
from dispatcher.local.replica_set import REPLICA_SET
from dispatcher.local.service import LocalService
from dispatcher.local.state import StackLock, StateFile, writable

_LEFTOVER_SECONDS = 10.0
_PORTS_AVOIDED = 6
_PORT_TAKEN = "Address already in use"


@dataclass(slots=True)
class LocalStack:
    """A local Kafka, a local MongoDB or both, and what the folder remembers.

    Attributes:
        folder: The data folder, absolute.
        kafka_bootstrap: `host:port` of Kafka; None where it isn't of this stack.
        mongo_uri: MongoDB's address with its replica set; None where it isn't of this stack.
        encryption_key: Base64 of 32 bytes, made with the folder and kept.
        kafka_process: Kafka's handle; None for whoever only found the stack.
        mongo_process: mongod's handle; likewise.
    """

    folder: Path
    kafka_bootstrap: str | None
    mongo_uri: str | None
    encryption_key: str
    kafka_process: LocalService | None = None
    mongo_process: LocalService | None = None
    _lock: StackLock | None = field(default=None, repr=False)

    def remember(self, **entries: Any) -> None:
        """Keep JSON values in the state file by name, beside or in place of older ones.

        Raises:
            LocalServiceError: the file can't be written.
        """
        StateFile(self.folder).change(lambda state: state.setdefault("remembered", {}).update(entries))

    def recall(self, name: str) -> Any:
        """Give what was remembered by this name, also in earlier runs; None where nothing was.

        Raises:
            LocalServiceError: the file can't be read.
        """
        return ((StateFile(self.folder).read() or {}).get("remembered") or {}).get(name)

    async def stop(self) -> None:
        """End Kafka, then MongoDB, and give the folder free; a stack that was only found goes on.

        Safe to call twice.
        """
        try:
            for process in (self.kafka_process, self.mongo_process):
                if process is not None:
                    await process.stop()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None


async def start_local(
    folder: Path,
    *,
    kafka: bool,
    mongo: bool,
    kafka_port: int | None = None,
    mongo_port: int | None = None,
    report: Callable[[str], None] = lambda _: None,
    kafka_properties: Mapping[str, str] | None = None,
    mongo_args: Sequence[str] = (),
) -> LocalStack:
    """Start the servers that are asked for, side by side, on the folder's kept data and ports.

    Call it from a thread that lasts as long as the stack shall, best the main thread: the servers end with it.

    Args:
        folder: The data folder; made if missing.
        kafka: Whether to start Kafka.
        mongo: Whether to start MongoDB.
        kafka_port: Insist on this port for Kafka's clients; None keeps the last run's or draws a free one.
        mongo_port: Likewise for MongoDB.
        report: Told in a line what goes on.
        kafka_properties: Kafka settings that win over the stack's.
        mongo_args: Arguments to add to mongod's.

    Returns:
        The running stack; whoever started it stops it.

    Raises:
        LocalServiceError: something is missing or taken, or a server didn't start; nothing runs then.
    """
    folder = folder.absolute()  # noqa: ASYNC240  # asks no disk
    if sys.platform != "linux":
        raise LocalServiceError(
            "the local stack runs on Linux only: name running servers with DISPATCHER_KAFKA_BOOTSTRAP_SERVERS and "
            "DISPATCHER_MONGO_URI"
        )
    lock = StackLock(folder)
    lock.take()
    start = _Start(folder, report)
    try:
        state = await start.prepare()
        async with asyncio.TaskGroup() as group:
            on_kafka = group.create_task(start.kafka(kafka_port, kafka_properties or {})) if kafka else None
            on_mongo = group.create_task(start.mongo(mongo_port, mongo_args)) if mongo else None
    except BaseException as error:
        await start.undo()
        lock.release()
        if isinstance(error, ExceptionGroup):  # the first one cancelled the other
            raise error.exceptions[0] from error.exceptions[0].__cause__
        raise
    kafka_process = on_kafka.result() if on_kafka else None
    mongo_process = on_mongo.result() if on_mongo else None
    return LocalStack(
        folder=folder,
        kafka_bootstrap=_bootstrap(kafka_process.port) if kafka_process else None,
        mongo_uri=_uri(mongo_process.port) if mongo_process else None,
        encryption_key=state["encryption_key"],
        kafka_process=kafka_process,
        mongo_process=mongo_process,
        _lock=lock,
    )


def find_running(folder: Path) -> LocalStack | None:
    """Find the stack that another process runs in this folder, after making sure that it lives.

    Its starter and each server must be the very processes that the state file names, and the server's port must
    take a connection.

    Returns:
        The stack, with the addresses of the servers that live, were it none; None where nobody runs one.

    Raises:
        LocalServiceError: the state file can't be read.
    """
    folder = folder.absolute()
    state = StateFile(folder).read()
    if state is None or not _lives(state.get("owner")):
        return None
    kafka_port, mongo_port = (_live_port(state.get(name)) for name in ("kafka", "mongo"))
    return LocalStack(
        folder=folder,
        kafka_bootstrap=_bootstrap(kafka_port) if kafka_port else None,
        mongo_uri=_uri(mongo_port) if mongo_port else None,
        encryption_key=state["encryption_key"],
    )


class _Start:
    """One start of a stack: knows what has been started so far, to undo it."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._file = StateFile(folder)
        self._started: list[LocalService] = []

    async def prepare(self) -> dict[str, Any]:
        """End what a killed run left behind, and put this process down as the stack's starter."""
        state = self._file.change(lambda _: None)
        for name in ("kafka", "mongo"):
            left = ProcessIdentity.from_json((state.get(name) or {}).get("process"))
            if left is not None and left.is_alive():
                self._report(f"Waiting for the last run's {name} (process {left.pid}) to end…")
                with writable(self._folder):
                    await asyncio.to_thread(left.end, patience_seconds=_LEFTOVER_SECONDS)

        def take_over(state: dict[str, Any]) -> None:
            owner = ProcessIdentity.of(os.getpid())
            state["owner"] = owner.to_json() if owner else None
            for name in ("kafka", "mongo"):
                state.setdefault(name, {})["process"] = None

        return self._file.change(take_over)

    async def kafka(self, wanted: int | None, extra: Mapping[str, str]) -> LocalService:
        """Start Kafka."""
        java = await asyncio.to_thread(find_java)
        jars = await self._kafka_jars()
        kept = (self._file.read() or {})["kafka"]
        cluster_id = kept.get("cluster_id") or broker.new_cluster_id()
        avoid: set[int] = set()
        while True:
            began = time.monotonic()
            port = _pick(wanted, kept.get("port"), "Kafka", avoid)
            controller_port = _pick(None, kept.get("controller_port"), "Kafka", avoid | {port})
            self._keep("kafka", port=port, controller_port=controller_port, cluster_id=cluster_id)
            properties = broker.server_properties(
                self._folder / "kafka", port=port, controller_port=controller_port, extra=extra
            )
            with writable(self._folder):
                service = await broker.make_broker(
                    self._folder,
                    java=java,
                    jars=jars,
                    cluster_id=cluster_id,
                    properties=properties,
                    port=port,
                    on_change=self._watcher("kafka"),
                )
            if await self._came_up(service, began, avoid, (port, controller_port)):
                return service

    async def mongo(self, wanted: int | None, extra: Sequence[str]) -> LocalService:
        """Start MongoDB."""
        binary = await asyncio.to_thread(mongod.find_mongod)
        kept = (self._file.read() or {})["mongo"]
        avoid: set[int] = set()
        while True:
            began = time.monotonic()
            port = _pick(wanted, kept.get("port"), "MongoDB", avoid)
            self._keep("mongo", port=port)
            watcher = self._watcher("mongo")
            if kept.get("member_port") != port:
                await mongod.move_data(self._folder, binary=binary, port=port, on_change=watcher)
                self._keep("mongo", member_port=port)
            with writable(self._folder):
                service = mongod.make_mongod(self._folder, binary=binary, port=port, extra=extra, on_change=watcher)
            if await self._came_up(service, began, avoid, (port,)):
                return service

    async def undo(self) -> None:
        """Stop what was started."""
        for service in self._started:
            await service.stop()

    async def _came_up(self, service: LocalService, began: float, avoid: set[int], used: Iterable[int]) -> bool:
        """Start a service; False where somebody took a port in between and another try is worth it."""
        try:
            await service.start()
        except LocalServiceError:
            if len(avoid) < _PORTS_AVOIDED and service.printed(_PORT_TAKEN):
                avoid.update(used)
                return False
            raise
        self._started.append(service)
        self._report(f"{service.name} is up on {_bootstrap(service.port)} ({time.monotonic() - began:.1f} s)")
        return True

    async def _kafka_jars(self) -> list[Path]:
        classpath = KafkaClasspath()
        jars = classpath.cached()
        if jars is None:
            self._report(f"Downloading Apache Kafka {KAFKA_VERSION} (about 45 MB, only the first time)…")
            jars = await asyncio.to_thread(classpath.fetch)
        return jars

    def _keep(self, name: str, **entries: Any) -> None:
        self._file.change(lambda state: state[name].update(entries))

    def _watcher(self, name: str) -> Callable[[ProcessIdentity | None], None]:
        return lambda who: self._keep(name, process=who.to_json() if who else None)


def _pick(wanted: int | None, kept: int | None, name: str, avoid: set[int]) -> int:
    if wanted is not None:
        if not ports.is_free(wanted):
            raise LocalServiceError(f"port {wanted} is taken: free it, or choose another for {name}")
        return wanted
    try:
        return ports.choose(kept=kept, avoid=avoid)
    except OSError as error:
        raise LocalServiceError(f"{name} can't have a port: {error}") from error


def _lives(identity: Any) -> bool:
    known = ProcessIdentity.from_json(identity)
    return known is not None and known.is_alive()


def _live_port(entry: Any) -> int | None:
    if not isinstance(entry, dict) or not _lives(entry.get("process")):
        return None
    port = entry.get("port")
    return port if isinstance(port, int) and ports.accepts(port) else None


def _bootstrap(port: int) -> str:
    return f"{ports.HOST}:{port}"


def _uri(port: int) -> str:
    return f"mongodb://{ports.HOST}:{port}/?replicaSet={REPLICA_SET}"
