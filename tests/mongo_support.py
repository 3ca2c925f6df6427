"""What contract tests ask of a real MongoDB."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.mongo import connect
from dispatcher.mongo.client import Connection, ensure_indexes
from dispatcher.settings import MongoSettings


@asynccontextmanager
async def open_database(uri: str, name: str) -> AsyncIterator[Connection]:
    """Connect to a database with the product's indexes; it is removed afterwards."""
    wanted = MongoSettings(uri, name)
    connection = connect(wanted)
    try:
        await ensure_indexes(connection, wanted)
        yield connection
        await connection.client.drop_database(name)
    finally:
        connection.close()
