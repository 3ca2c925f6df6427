"""The local stack with the real servers: what is kept, what ends, what is refused."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from motor.motor_asyncio import AsyncIOMotorClient

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import LocalStack, find_running, start_local
from dispatcher.local.identity import ProcessIdentity
from dispatcher.local.state import StateFile

# A stack of its own process, which tells its word on standard output and then waits to be killed.
CHILD = """
import asyncio, sys
from pathlib import Path
from dispatcher.local import start_local

async def main():
    stack = await start_local(Path(sys.argv[1]), kafka=True, mongo=True, mongo_args=("--oplogSize", "64"))
    stack.remember(api_key="kept")
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def start_child(folder: Path, code: str = CHILD) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)


async def put(stack: LocalStack, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap, acks="all") as producer:
        await producer.send_and_wait("kept", value)
    client = AsyncIOMotorClient(stack.mongo_uri, w="majority")
    await client["kept"]["things"].insert_one({"_id": 1, "value": value})
    client.close()


async def got(stack: LocalStack) -> tuple[bytes, bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap) as consumer:
        partition = TopicPartition("kept", 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        record = await asyncio.wait_for(consumer.getone(), 20)
    client = AsyncIOMotorClient(stack.mongo_uri)
    document = await client["kept"]["things"].find_one({"_id": 1})
    async with client["kept"]["things"].watch():  # a replica set's primary only
        pass
    client.close()
    return record.value, document["value"]


def processes(folder: Path) -> list[ProcessIdentity]:
    state = StateFile(folder).read()
    found = [ProcessIdentity.from_json(state[name]["process"]) for name in ("kafka", "mongo")]
    return [each for each in found if each is not None]


async def test_killed_stack_leaves_nothing_running_and_comes_back_with_its_data(tmp_path: Path) -> None:
    """After SIGKILL the servers end by themselves; the next start, on other ports, has data and keys again."""
    folder = tmp_path / "data"
    with start_child(folder) as child:
        assert await asyncio.to_thread(child.stdout.readline) == b"up\n"
        found = find_running(folder)
        assert found is not None
        with pytest.raises(LocalServiceError, match=f"process {child.pid}.*DISPATCHER_LOCAL_DIR"):
            await start_local(folder, kafka=False, mongo=False)
        await put(found, b"value")
        left = processes(folder)
        assert len(left) == 2
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert find_running(folder) is None
    await until(lambda: not any(each.is_alive() for each in left))

    ports = [int(found.kafka_bootstrap.rpartition(":")[2]), int(found.mongo_uri.split(":")[2].partition("/")[0])]
    takers = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        stack = await start_local(folder, kafka=True, mongo=True)
        try:
            assert stack.kafka_bootstrap != found.kafka_bootstrap
            assert stack.mongo_uri != found.mongo_uri
            assert await got(stack) == (b"value", b"value")
            assert (stack.encryption_key, stack.recall("api_key")) == (found.encryption_key, "kept")
        finally:
            await stack.stop()
    finally:
        for taker in takers:
            taker.close()


async def test_next_start_ends_a_server_that_outlived_its_starter(tmp_path: Path) -> None:
    """A leftover that takes no notice of its parent's death is ended by the next start, which then works."""
    folder = tmp_path / "data"
    code = CHILD.replace("kafka=True", "kafka=False")
    with start_child(folder, code) as child:
        assert await asyncio.to_thread(child.stdout.readline) == b"up\n"
        (left,) = processes(folder)
        left.send(signal.SIGSTOP)  # the signal at its parent's death waits, too
        child.kill()
    assert left.is_alive()
    said: list[str] = []
    stack = await start_local(folder, kafka=False, mongo=True, report=said.append)
    try:
        assert not left.is_alive()
        assert f"process {left.pid}" in said[0]
        assert stack.kafka_bootstrap is None
        assert stack.kafka_process is None
    finally:
        await stack.stop()


async def test_kafka_alone_survives_stop_kill_and_pause(local_stack_factory) -> None:
    """Kafka starts without MongoDB, and its handle stops, kills, pauses and starts it on the same port."""
    stack = await local_stack_factory(mongo=False, kafka_properties={"num.partitions": "3"})
    kafka = stack.kafka_process
    assert (stack.mongo_uri, stack.mongo_process) == (None, None)
    for end in (kafka.stop, kafka.kill):
        await end()
        assert kafka.pid is None
        assert find_running(stack.folder).kafka_bootstrap is None
        await kafka.start()
        assert find_running(stack.folder).kafka_bootstrap == stack.kafka_bootstrap
    kafka.pause()
    status = Path(f"/proc/{kafka.pid}/stat")
    await until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
    kafka.resume()
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    (broker,) = (await admin.describe_cluster())["brokers"]
    await admin.close()
    assert f"{broker['host']}:{broker['port']}" == stack.kafka_bootstrap


async def test_taken_port_that_was_asked_for_is_named(tmp_path: Path) -> None:
    """A configured port that somebody else has is refused by number, and nothing is left running or locked."""
    with socket.create_server(("127.0.0.1", 0)) as taker:
        port = taker.getsockname()[1]
        with pytest.raises(LocalServiceError, match=f"port {port} is taken"):
            await start_local(tmp_path, kafka=False, mongo=True, mongo_port=port)
    stack = await start_local(tmp_path, kafka=False, mongo=True, mongo_port=port)
    assert stack.mongo_uri.startswith(f"mongodb://127.0.0.1:{port}/")
    process = stack.mongo_process.pid
    await stack.stop()
    await stack.stop()
    assert ProcessIdentity.of(process) is None


async def test_server_that_dies_while_starting_shows_its_log(tmp_path: Path) -> None:
    """The error of a server that refuses its settings holds the log's last lines and path; its sibling is stopped."""
    with pytest.raises(LocalServiceError, match=r"formatting Kafka.s data folder failed \(exit code 1\)") as caught:
        await start_local(tmp_path, kafka=True, mongo=True, kafka_properties={"message.max.bytes": "-7"})
    assert str(tmp_path / "logs" / "kafka.log") in str(caught.value)
    assert "message.max.bytes" in str(caught.value)
    assert processes(tmp_path) == []
