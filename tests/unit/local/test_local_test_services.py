"""Where tests get their Kafka and MongoDB from: the order, each by itself. Docker is a fake here."""

from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.errors import LocalServiceError
from tests.services import KAFKA_VARIABLE, MONGO_VARIABLE, NoServicesError, resolve


class FakeMachine:
    """Stands for local packages and a Docker engine, either of which may be missing."""

    def __init__(self, *, packages: tuple[str, ...] = (), docker: bool = False) -> None:
        self.packages = packages
        self.docker = docker
        self.events: list[str] = []

    async def start(self, folder: Path, *, kafka: bool, mongo: bool) -> Any:
        """Stand for `start_local`."""
        for wanted, name in ((kafka, "kafka"), (mongo, "mongo")):
            if wanted and name not in self.packages:
                raise LocalServiceError(f"no package for {name}")

        async def stop() -> None:
            self.events.append("stack stopped")

        return SimpleNamespace(
            kafka_bootstrap="local:1" if kafka else None, mongo_uri="mongodb://local" if mongo else None, stop=stop
        )

    def load(self, name: str) -> Any:
        """Stand for importing testcontainers."""

        def container(image: str) -> Any:
            def start() -> None:
                if not self.docker:
                    raise ConnectionError("no engine")
                self.events.append(f"{image} started")

            made = SimpleNamespace(
                start=start,
                stop=lambda: self.events.append(f"{image} stopped"),
                get_bootstrap_server=lambda: "docker:1",
                get_connection_url=lambda: "mongodb://docker",
            )
            made.with_kraft = lambda: made
            made.with_env = lambda *_: made
            return made

        return SimpleNamespace(KafkaContainer=container, MongoDBAtlasLocalContainer=container)

    async def resolve(self, **environment: str) -> Any:
        """Resolve on this machine, and stop all again."""
        async with AsyncExitStack() as stack:
            return await resolve(stack, Path("none"), environment=environment, start=self.start, load=self.load)


async def test_configured_addresses_win() -> None:
    """Addresses in the environment are taken as they are, and nothing is started."""
    machine = FakeMachine(packages=("kafka", "mongo"), docker=True)
    found = await machine.resolve(**{KAFKA_VARIABLE: "k:1", MONGO_VARIABLE: "mongodb://m"})
    assert (found.kafka_bootstrap, found.mongo_uri, found.source) == ("k:1", "mongodb://m", "configured")
    assert machine.events == []


async def test_packages_come_before_docker() -> None:
    """Where the local packages work no container starts, and the stack is stopped at the end."""
    machine = FakeMachine(packages=("kafka", "mongo"), docker=True)
    found = await machine.resolve()
    assert (found.kafka_bootstrap, found.mongo_uri, found.source) == ("local:1", "mongodb://local", "local")
    assert machine.events == ["stack stopped"]


async def test_docker_comes_last_and_is_stopped() -> None:
    """Without packages both run in containers, which stop at the end."""
    machine = FakeMachine(docker=True)
    found = await machine.resolve()
    assert (found.kafka_bootstrap, found.mongo_uri, found.source) == ("docker:1", "mongodb://docker", "docker")
    assert [event.rpartition(" ")[2] for event in machine.events] == ["started", "started", "stopped", "stopped"]


@pytest.mark.parametrize("package", ["kafka", "mongo"])
async def test_each_is_resolved_by_itself(package: str) -> None:
    """What packages can't give comes from Docker, the other one still from packages."""
    machine = FakeMachine(packages=(package,), docker=True)
    found = await machine.resolve()
    sources = {"kafka": found.kafka_source, "mongo": found.mongo_source}
    assert sources.pop(package) == "local"
    assert list(sources.values()) == ["docker"]
    assert len(machine.events) == 3


async def test_half_configured_machine_starts_the_other_half() -> None:
    """A configured Kafka leaves only MongoDB to be started, and the report says so."""
    found = await FakeMachine(packages=("mongo",)).resolve(**{KAFKA_VARIABLE: "k:1"})
    assert found.source == "Kafka configured, MongoDB local"


async def test_machine_with_nothing_fails_with_one_sentence() -> None:
    """The message names the variable, what the packages lack and what Docker said; what had started is stopped."""
    machine = FakeMachine(packages=("kafka",))
    with pytest.raises(NoServicesError) as caught:
        await machine.resolve()
    for part in (MONGO_VARIABLE, "no package for mongo", "no engine"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert machine.events == ["stack stopped"]
