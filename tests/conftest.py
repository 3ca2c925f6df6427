"""Fixtures that every test may use: the real services, stacks of one's own, names nobody else has."""

import itertools
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dispatcher.local import LocalStack, start_local
from tests.services import NoServicesError, Services, resolve

_TAKEN = pytest.StashKey[str]()
# Disk and start-up are what a test's mongod should spare.
TEST_MONGO_ARGS = ("--oplogSize", "64")


@pytest.fixture(scope="session")
async def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Real Kafka and MongoDB for the whole run, started when the first test asks for them."""
    folder = tmp_path_factory.mktemp("services")

    async def start(*args: Any, **options: Any) -> LocalStack:
        return await start_local(*args, mongo_args=TEST_MONGO_ARGS, **options)

    try:
        async with AsyncExitStack() as stack:
            try:
                found = await resolve(stack, folder, start=start)
            except NoServicesError as error:
                pytest.fail(str(error), pytrace=False)
            request.config.stash[_TAKEN] = f"services: {found.source}"
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def local_stack_factory(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Callable[..., Awaitable[LocalStack]]]:
    """Start local stacks of the test's own, each in a fresh folder unless one is given; all end with the test."""
    folders = []
    async with AsyncExitStack() as stack:

        async def make(*, kafka: bool = True, mongo: bool = True, **options: Any) -> LocalStack:
            folder = options.pop("folder", None) or tmp_path_factory.mktemp("stack")
            folders.append(folder)
            options.setdefault("mongo_args", TEST_MONGO_ARGS)
            made = await start_local(folder, kafka=kafka, mongo=mongo, **options)
            stack.push_async_callback(made.stop)
            return made

        yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def unique_name() -> Callable[..., str]:
    """Make names that no other test and no other run uses, for topics, groups and databases (at most 38 bytes)."""
    run = f"{os.getpid():x}{uuid.uuid4().hex[:6]}"
    numbers = itertools.count(1)

    def make(prefix: str = "t") -> str:
        return f"{prefix[:20]}-{run}-{next(numbers)}"

    return make


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which services the tests ran on."""
    if taken := config.stash.get(_TAKEN, None):
        terminalreporter.write_line(taken)
