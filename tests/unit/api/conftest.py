"""The API over stores in memory."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.api_stack import ApiStack, api_stack
from tests.fakes.stores import MemoryDeliveryLogReader, Outage


@pytest.fixture
def outage() -> Outage:
    return Outage()


@pytest.fixture
def log(outage: Outage) -> MemoryDeliveryLogReader:
    return MemoryDeliveryLogReader(outage)


@pytest.fixture
async def api(outage: Outage, log: MemoryDeliveryLogReader) -> AsyncIterator[ApiStack]:
    async with api_stack(outage=outage, log=log, known_types=("user.created", "user.deleted")) as stack:
        yield stack
