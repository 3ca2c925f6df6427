"""The API keys, for commands; apart from the other connections, as what checks a key's fields is slow to import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.audit import MongoAudit
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.audit import Audit
from dispatcher.settings import Settings


@asynccontextmanager
async def api_keys(settings: Settings) -> AsyncIterator[ApiKeys]:
    """Open the API keys; raises what `mongo_connection` raises."""
    async with mongo_connection(settings) as connection:
        clock = SystemClock()
        audit = Audit(MongoAudit(connection.audit), clock, draw)
        yield ApiKeys(MongoApiKeys(connection.api_keys), clock, draw, audit=audit)
