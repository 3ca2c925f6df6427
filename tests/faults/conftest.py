"""A dispatcher of each test's own, without a worker: these tests start and kill them."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.deployment import Deployment, deploy, make_settings
from tests.services import Services


@pytest.fixture
async def deployment(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Deployment]:
    """A deployment with four partitions a topic."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("fault"), partitions=4)
    async with deploy(settings) as made:
        yield made
