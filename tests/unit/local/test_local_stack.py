"""A stack is found only while it lives, starts side by side, and undoes a half start."""

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import broker, mongod, stack
from dispatcher.local.identity import ProcessIdentity
from dispatcher.local.service import LocalService
from dispatcher.local.state import StateFile

SLEEP = "print('up', flush=True); import time; time.sleep(60)"
TAKEN = "print('Address already in use', flush=True); raise SystemExit(1)"


class FakeServers:
    """Stands for both servers: processes that only sleep, and what they were asked for."""

    def __init__(self) -> None:
        self.kafka_code = self.mongo_code = SLEEP
        self.ports: list[int] = []
        self.pids: list[int] = []

    def service(self, name: str, folder: Path, port: int, code: str, on_change: Any) -> LocalService:
        """Prepare one that sleeps."""
        self.ports.append(port)

        def note(who: ProcessIdentity | None) -> None:
            if who is not None:
                self.pids.append(who.pid)
            on_change(who)

        log_path = folder / "logs" / f"{name}.log"

        async def ready(_: float) -> None:
            while "up" not in stack_text(log_path):
                await asyncio.sleep(0.01)

        command = [sys.executable, "-I", "-S", "-c", code]
        return LocalService(name, command, port=port, log_path=log_path, ready=ready, on_change=note)


def stack_text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> FakeServers:
    fake = FakeServers()

    async def make_broker(folder: Path, *, port: int, on_change: Any, **_: Any) -> LocalService:
        return fake.service("Kafka", folder, port, fake.kafka_code, on_change)

    def make_mongod(folder: Path, *, port: int, on_change: Any, **_: Any) -> LocalService:
        return fake.service("MongoDB", folder, port, fake.mongo_code, on_change)

    monkeypatch.setattr(broker, "make_broker", make_broker)
    monkeypatch.setattr(mongod, "make_mongod", make_mongod)
    monkeypatch.setattr(mongod, "find_mongod", lambda: Path("mongod"))
    monkeypatch.setattr(stack, "find_java", lambda: Path("java"))
    monkeypatch.setattr(stack.KafkaClasspath, "cached", lambda _: [Path("a.jar")])
    return fake


async def test_stack_keeps_its_ports_key_and_memory(servers: FakeServers, tmp_path: Path) -> None:
    """The second start has the first one's ports and encryption key, and recalls what it remembered."""
    said: list[str] = []
    first = await stack.start_local(tmp_path, kafka=True, mongo=True, report=said.append)
    first.remember(api_key="k", seen=1)
    first.remember(seen=2)
    await first.stop()
    second = await stack.start_local(tmp_path, kafka=True, mongo=True)
    await second.stop()
    assert (second.kafka_bootstrap, second.mongo_uri) == (first.kafka_bootstrap, first.mongo_uri)
    assert second.encryption_key == first.encryption_key
    assert (second.recall("api_key"), second.recall("seen"), second.recall("other")) == ("k", 2, None)
    assert sorted(line.split(" is up on ")[0] for line in said) == ["Kafka", "MongoDB"]
    assert all(ProcessIdentity.of(pid) is None for pid in servers.pids)


async def test_only_what_is_asked_for_starts(servers: FakeServers, tmp_path: Path) -> None:
    """Kafka and MongoDB start each by itself, and a configured port is used."""
    port = stack.ports.choose()
    made = await stack.start_local(tmp_path, kafka=False, mongo=True, mongo_port=port)
    await made.stop()
    assert (made.kafka_bootstrap, made.kafka_process) == (None, None)
    assert made.mongo_uri == f"mongodb://127.0.0.1:{port}/?replicaSet=dispatcher"
    assert len(servers.pids) == 1


async def test_failing_server_stops_its_sibling_and_frees_the_folder(servers: FakeServers, tmp_path: Path) -> None:
    """When one of the two doesn't start, none is left, its error comes as it is, and another start may try."""
    servers.kafka_code = "raise SystemExit(9)"
    with pytest.raises(LocalServiceError, match=r"Kafka ended while starting \(exit code 9\)"):
        await stack.start_local(tmp_path, kafka=True, mongo=True)
    assert all(ProcessIdentity.of(pid) is None for pid in servers.pids)
    servers.kafka_code = SLEEP
    await (await stack.start_local(tmp_path, kafka=True, mongo=True)).stop()


async def test_port_that_is_taken_in_the_last_moment_is_chosen_anew(servers: FakeServers, tmp_path: Path) -> None:
    """A server that finds its port taken is started on others, a bounded number of times."""
    servers.mongo_code = TAKEN
    with pytest.raises(LocalServiceError, match="Address already in use"):
        await stack.start_local(tmp_path, kafka=False, mongo=True)
    assert 1 < len(servers.ports) == len(set(servers.ports)) < 10


async def test_configured_port_that_is_taken_is_named(servers: FakeServers, tmp_path: Path) -> None:
    """A port that the caller insists on is never replaced."""
    with socket.create_server(("127.0.0.1", 0)) as taker:
        port = taker.getsockname()[1]
        with pytest.raises(LocalServiceError, match=f"port {port} is taken.*Kafka"):
            await stack.start_local(tmp_path, kafka=True, mongo=False, kafka_port=port)


async def test_download_is_announced(servers: FakeServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a start that has to download says so."""
    said: list[str] = []
    monkeypatch.setattr(stack.KafkaClasspath, "cached", lambda _: None)
    monkeypatch.setattr(stack.KafkaClasspath, "fetch", lambda _: [Path("a.jar")])
    await (await stack.start_local(tmp_path, kafka=True, mongo=False, report=said.append)).stop()
    assert said[0].startswith("Downloading Apache Kafka")


async def test_other_systems_are_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that is no Linux is sent to the settings before anything is written."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LocalServiceError, match="Linux only"):
        await stack.start_local(tmp_path / "data", kafka=True, mongo=True)
    assert not (tmp_path / "data").exists()


@pytest.fixture
def written(tmp_path: Path):
    """A state as this very process would have written it as starter and as both servers, listening."""
    me = ProcessIdentity.of(os.getpid()).to_json()
    with socket.create_server(("127.0.0.1", 0)) as kafka, socket.create_server(("127.0.0.1", 0)) as mongo:
        entries = {
            "owner": me,
            "kafka": {"port": kafka.getsockname()[1], "process": me},
            "mongo": {"port": mongo.getsockname()[1], "process": me},
        }
        StateFile(tmp_path).change(lambda state: state.update(entries))
        yield entries, kafka


async def test_living_stack_is_found_and_not_stopped(written, tmp_path: Path) -> None:
    """A reader gets both addresses, the key and the memory, and its stop ends nothing."""
    entries, _ = written
    found = stack.find_running(tmp_path)
    assert found.kafka_bootstrap == f"127.0.0.1:{entries['kafka']['port']}"
    assert found.mongo_uri == f"mongodb://127.0.0.1:{entries['mongo']['port']}/?replicaSet=dispatcher"
    found.remember(api_key="k")
    assert stack.find_running(tmp_path).recall("api_key") == "k"
    await found.stop()
    assert stack.find_running(tmp_path) is not None


def test_server_that_does_not_listen_is_left_out(written, tmp_path: Path) -> None:
    """A server whose port takes no connection isn't offered, the other one is."""
    _, kafka = written
    kafka.close()
    found = stack.find_running(tmp_path)
    assert found.kafka_bootstrap is None
    assert found.mongo_uri is not None


def test_dead_stack_is_not_found(written, tmp_path: Path) -> None:
    """A stack whose starter is another process by now isn't there, though the ports answer."""
    entries, _ = written
    StateFile(tmp_path).change(lambda state: state.update(owner=entries["owner"] | {"start_ticks": 1}))
    assert stack.find_running(tmp_path) is None


def test_dead_servers_are_not_offered(written, tmp_path: Path) -> None:
    """Servers that are other processes by now have no address; the folder's key still serves the starter's children."""
    entries, _ = written

    def bury(state: dict[str, Any]) -> None:
        state["kafka"]["process"] = entries["owner"] | {"start_ticks": 1}
        state["mongo"]["process"] = None

    StateFile(tmp_path).change(bury)
    found = stack.find_running(tmp_path)
    assert (found.kafka_bootstrap, found.mongo_uri) == (None, None)
    assert found.encryption_key == StateFile(tmp_path).read()["encryption_key"]


def test_empty_folder_has_no_stack(tmp_path: Path) -> None:
    """Where nothing was ever started, nothing is found and nothing is written."""
    assert stack.find_running(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
