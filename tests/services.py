"""Real Kafka and MongoDB for tests, from wherever this machine has them.

Each of the two is resolved by itself, in this order: an address in the environment, the local stack from packages,
Docker through testcontainers. A machine with none of them fails with one sentence.
"""

import asyncio
import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import LocalStack, start_local

KAFKA_VARIABLE = "DISPATCHER_TEST_KAFKA_BOOTSTRAP_SERVERS"
MONGO_VARIABLE = "DISPATCHER_TEST_MONGO_URI"

Source = Literal["configured", "local", "docker"]
Import = Callable[[str], Any]


class NoServicesError(Exception):
    """This machine has no way to run what the tests need; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses of the real things, and where they came from.

    Attributes:
        kafka_bootstrap: `host:port`, comma separated.
        mongo_uri: The address of a replica set's primary.
        kafka_source: Where Kafka came from.
        mongo_source: Where MongoDB came from.
        stack: The local stack, where one of them came from packages.
    """

    kafka_bootstrap: str
    mongo_uri: str
    kafka_source: Source
    mongo_source: Source
    stack: LocalStack | None = None

    @property
    def source(self) -> str:
        """Where both came from: one word where they agree, else one for each."""
        if self.kafka_source == self.mongo_source:
            return self.kafka_source
        return f"Kafka {self.kafka_source}, MongoDB {self.mongo_source}"


async def resolve(
    stack: AsyncExitStack,
    folder: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    start: Callable[..., Any] = start_local,
    load: Import = importlib.import_module,
) -> Services:
    """Find or start Kafka and MongoDB.

    Args:
        stack: What is started here is stopped when it closes.
        folder: A fresh folder for the local stack's data.
        environment: Where addresses may be configured.
        start: Starts a local stack, as `start_local` does.
        load: Imports a module by name.

    Raises:
        NoServicesError: there is no way to have one of them here.
    """
    kafka, mongo = environment.get(KAFKA_VARIABLE), environment.get(MONGO_VARIABLE)
    kafka_source: Source = "configured"
    mongo_source: Source = "configured"
    local, why_not = None, ""
    if not (kafka and mongo):
        try:
            local = await start(folder, kafka=not kafka, mongo=not mongo)
            stack.push_async_callback(local.stop)
        except LocalServiceError as error:
            local, why_not = await _one_alone(stack, folder, start, kafka=not kafka, mongo=not mongo), str(error)
    if not kafka:
        kafka, kafka_source = local and local.kafka_bootstrap, "local"
    if not mongo:
        mongo, mongo_source = local and local.mongo_uri, "local"
    if not kafka:
        kafka, kafka_source = await asyncio.to_thread(docker_kafka, stack, load, why_not), "docker"
    if not mongo:
        mongo, mongo_source = await asyncio.to_thread(docker_mongo, stack, load, why_not), "docker"
    return Services(kafka, mongo, kafka_source, mongo_source, local)


async def _one_alone(
    stack: AsyncExitStack, folder: Path, start: Callable[..., Any], *, kafka: bool, mongo: bool
) -> LocalStack | None:
    """Start the one that can, where both together couldn't."""
    if not (kafka and mongo):
        return None
    for only in ({"kafka": True, "mongo": False}, {"kafka": False, "mongo": True}):
        try:
            local = await start(folder, **only)
        except LocalServiceError:
            continue
        stack.push_async_callback(local.stop)
        return local
    return None


def docker_kafka(stack: AsyncExitStack, load: Import, why_not_local: str) -> str:
    """Start Kafka in a container and give its address.

    Raises:
        NoServicesError: there is no engine, or the container didn't start.
    """

    def make() -> Any:
        container = load("testcontainers.kafka").KafkaContainer("confluentinc/cp-kafka:7.9.0").with_kraft()
        container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        return container.with_env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")

    return str(_run(stack, make, "Kafka", KAFKA_VARIABLE, why_not_local).get_bootstrap_server())


def docker_mongo(stack: AsyncExitStack, load: Import, why_not_local: str) -> str:
    """Start a replica set of one in a container and give its address.

    Raises:
        NoServicesError: there is no engine, or the container didn't start.
    """

    def make() -> Any:
        return load("testcontainers.mongodb").MongoDBAtlasLocalContainer("mongodb/mongodb-atlas-local:7.0")

    return str(_run(stack, make, "MongoDB", MONGO_VARIABLE, why_not_local).get_connection_url())


def _run(stack: AsyncExitStack, make: Callable[[], Any], name: str, variable: str, why_not_local: str) -> Any:
    try:
        container = make()
        container.start()
    except Exception as error:
        raise NoServicesError(
            f"the tests need {name}: set {variable}, or mend the local packages ({why_not_local}), "
            f"or start a Docker engine ({type(error).__name__}: {error})"
        ) from error
    stack.callback(container.stop)
    return container
