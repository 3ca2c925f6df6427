"""Makes a lone mongod the primary of a replica set of one: change streams and transactions need a set.

The only file here that talks to MongoDB.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from dispatcher.local.ports import HOST

REPLICA_SET = "dispatcher"
_ALREADY_INITIALIZED = 23
_PAUSE_SECONDS = 0.03

Client = AsyncMongoClient[dict[str, Any]]


async def make_primary(port: int, *, timeout_seconds: float) -> None:
    """Return once the mongod on this port is primary, its set made where there was none.

    Args:
        port: Where mongod listens on the loopback address; the set's member must have this port.
        timeout_seconds: How long it may take.

    Raises:
        TimeoutError: it wasn't primary in time; the text is MongoDB's last answer.
    """
    await _until(port, _is_primary, timeout_seconds)


async def move_member(port: int, *, timeout_seconds: float) -> None:
    """Rewrite the stored set's one member to this port, on a mongod that runs outside the set.

    A set that looks for itself at its old address asks whoever listens there now, and may wait half a minute for
    an answer; this asks nobody.

    Args:
        port: Where mongod listens now, and where the set's member will.
        timeout_seconds: How long it may take.

    Raises:
        TimeoutError: it wasn't done in time; the text is MongoDB's last answer.

    Source: the MongoDB manual, "Change Hostnames in a Self-Managed Replica Set".
    """
    await _until(port, _moved, timeout_seconds)


async def _until(port: int, step: Callable[[Client, str], Awaitable[bool]], timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    last: object = "no answer"
    client: Client = AsyncMongoClient(
        HOST, port, directConnection=True, serverSelectionTimeoutMS=500, connectTimeoutMS=2000, socketTimeoutMS=5000
    )
    async with client:
        while time.monotonic() < deadline:
            try:
                if await step(client, f"{HOST}:{port}"):
                    return
                last = "it isn't ready yet"
            except PyMongoError as error:
                last = error
            await asyncio.sleep(_PAUSE_SECONDS)
    raise TimeoutError(f"mongod on {HOST}:{port}: {last}")


async def _is_primary(client: Client, address: str) -> bool:
    hello = await client.admin.command("hello")
    if not hello.get("setName") and hello.get("isreplicaset"):  # started for a set, and has none
        try:
            await client.admin.command(
                {"replSetInitiate": {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]}}
            )
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise
    return bool(hello.get("isWritablePrimary")) and hello.get("me") == address


async def _moved(client: Client, address: str) -> bool:
    await client.local["system.replset"].update_one({"_id": REPLICA_SET}, {"$set": {"members.0.host": address}})
    return True
