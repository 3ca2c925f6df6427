"""Apache Kafka as one process, broker and controller in one (KRaft), on the loopback address."""

import asyncio
import base64
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from dispatcher.local import ports, service
from dispatcher.local.identity import ProcessIdentity

_PAUSE_SECONDS = 0.05
_FORMAT_SECONDS = 60.0
_JVM = (
    "-XX:+UseSerialGC",
    "-Xms256m",
    "-Xmx512m",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
)


def new_cluster_id() -> str:
    """Draw a cluster id as Kafka writes them: 16 bytes as URL-safe base64 without padding, no dash in front."""
    while True:
        drawn = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode("ascii")
        if not drawn.startswith("-"):  # Kafka's tools would take it for an option
            return drawn


def server_properties(
    data: Path, *, port: int, controller_port: int, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give the settings of a single-node Kafka.

    The quorum is the static kind, named by the settings and not by the data, so that its port can change.

    Args:
        data: The folder of its logs.
        port: Where clients connect.
        controller_port: Where the quorum, a set of one, talks to itself.
        extra: Settings that win over these.
    """
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{ports.HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{ports.HOST}:{port},CONTROLLER://{ports.HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{ports.HOST}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # After a kill, the broker can't register again before its old session ends; the default is 9 s.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        **(extra or {}),
    }


async def make_broker(
    folder: Path,
    *,
    java: Path,
    jars: Sequence[Path],
    cluster_id: str,
    properties: Mapping[str, str],
    port: int,
    on_change: Callable[[ProcessIdentity | None], None],
) -> service.LocalService:
    """Prepare a Kafka: write its settings and, the first time, format its data folder.

    Args:
        folder: The stack's data folder.
        java: The Java runtime.
        jars: Kafka's archives.
        cluster_id: The cluster's id, kept with the data.
        properties: What `server_properties` gave.
        port: Where clients connect.
        on_change: Told who runs.

    Returns:
        The service, not started.

    Raises:
        LocalServiceError: formatting failed.
        OSError: the folder can't be written.
    """
    data = Path(properties["log.dirs"])
    log_path = folder / "logs" / "kafka.log"
    settings = folder / "server.properties"
    settings.write_text("".join(f"{name}={_escaped(value)}\n" for name, value in properties.items()), encoding="utf-8")
    scratch = folder / "tmp"  # unpacked native libraries, which a killed Kafka leaves behind
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    base = [str(java), *_JVM, f"-Djava.io.tmpdir={scratch}", *_LOGGING]
    classpath = ["-cp", ":".join(map(str, jars))]
    if not (data / "meta.properties").exists():
        shutil.rmtree(data, ignore_errors=True)  # a first start that was interrupted
        arguments = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", str(settings)]
        await service.run(
            "formatting Kafka's data folder",
            [*base, "-XX:TieredStopAtLevel=1", *classpath, *arguments],
            log_path,
            timeout_seconds=_FORMAT_SECONDS,
        )
    return service.LocalService(
        "Kafka",
        [*base, *classpath, "kafka.Kafka", str(settings)],
        port=port,
        log_path=log_path,
        ready=lambda seconds: wait_until_serving(port, timeout_seconds=seconds),
        on_change=on_change,
    )


async def wait_until_serving(port: int, *, timeout_seconds: float) -> None:
    """Return once the broker on this port counts itself among the live ones.

    Raises:
        TimeoutError: it didn't in time.
    """
    deadline = time.monotonic() + timeout_seconds
    last: object = "no connection"
    while time.monotonic() < deadline:
        # The client shouts at refused connections, which are what a start looks like: knock first.
        if ports.accepts(port):
            try:
                if await _live_brokers(port):
                    return
                last = "the broker isn't registered yet"
            except (KafkaError, OSError) as error:
                last = error
        await asyncio.sleep(_PAUSE_SECONDS)
    raise TimeoutError(f"no answer on {ports.HOST}:{port}: {last}")


async def _live_brokers(port: int) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=f"{ports.HOST}:{port}", request_timeout_ms=5000)
    try:
        await admin.start()
        return len((await admin.describe_cluster())["brokers"])
    finally:
        await admin.close()


def _escaped(value: str) -> str:
    """Write a value as a Java properties file has it: only the backslash means something else there."""
    return value.replace("\\", "\\\\")
