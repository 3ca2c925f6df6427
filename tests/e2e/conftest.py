"""One dispatcher with a running worker for the tests of this folder; each test has a workspace of its own."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.deployment import Deployment, deploy, make_settings
from tests.services import Services

TIERS = ("300ms", "400ms", "500ms", "600ms", "1s")


@pytest.fixture(scope="package")
async def shared(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Deployment]:
    """A deployment whose worker runs in this process."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("e2e"), TIERS)
    async with deploy(settings) as deployment, deployment.worker() as worker:
        deployment.running = worker
        yield deployment


@pytest.fixture
def workspace(unique_name: Callable[..., str]) -> str:
    """A workspace that no other test has."""
    return unique_name("ws")
