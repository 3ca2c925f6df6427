"""What tests ask of a real MongoDB."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from dispatcher.mongo import connect
from dispatcher.mongo.client import Connection, ensure_indexes
from dispatcher.settings import MongoSettings

SHORT_HISTORY = ("--oplogSize", "8", "--syncdelay", "1")
"""Arguments of a mongod whose history is lost soon: it cuts its oplog up to the last checkpoint, one each second."""
HISTORY_LOST = 286
HISTORY_SECONDS = 90.0


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


async def resume_token(connection: Connection) -> Mapping[str, Any]:
    """Give a token of the webhooks' change stream that stands for now."""
    async with connection.webhooks.watch() as stream:
        await stream.try_next()
        token: Mapping[str, Any] = stream.resume_token
        return token


async def overwrite_history(connection: Connection, token: Mapping[str, Any]) -> None:
    """Write until a server with `SHORT_HISTORY` has none for a token of the webhooks' change stream any more."""
    filler = connection.database["filler"]
    deadline = time.monotonic() + HISTORY_SECONDS
    while time.monotonic() < deadline:
        await filler.insert_many([{"x": bytes(1024 * 1024)} for _ in range(24)])
        await filler.delete_many({})
        try:
            async with connection.webhooks.watch(resume_after=token) as stream:
                await stream.try_next()
        except OperationFailure as error:
            assert error.code == HISTORY_LOST, error  # noqa: PT017 - the error is the point
            return
    pytest.fail("the oplog kept its history")
