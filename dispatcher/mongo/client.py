"""The connection to MongoDB, its collections and their indexes."""

import asyncio
from dataclasses import dataclass
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from dispatcher.mongo.absence import unavailable_errors
from dispatcher.settings import MongoSettings

Document = dict[str, Any]
Collection = AsyncIOMotorCollection[Document]

WRITE_TIMEOUT_MS = 10_000
SILENCE_MS = 15_000
AUDIT_DAYS = 400
"""How long changes are kept: a year, and what it takes to look back on one."""
REPLAY_DAYS = 90
"""How long finished replay jobs are kept."""
MAJORITY: Document = {"w": "majority", "j": True, "wtimeout": WRITE_TIMEOUT_MS}
"""Acknowledged when the majority's journals have it: no election and no crash takes it back."""

_SELECTION_TIMEOUT_MS = 5_000
_CONNECT_TIMEOUT_MS = 5_000
_TTL_INDEX = "expire"
_FORMER_INDEX = "failed"
_SECONDS_PER_DAY = 86_400
_INDEX_NOT_FOUND = 27

_WEBHOOK_INDEXES = (
    IndexModel([("workspace_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="list"),
)
_API_KEY_INDEXES = (
    IndexModel([("hash", ASCENDING)], name="hash", unique=True),
    IndexModel([("workspace_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="list"),
)
_AUDIT_INDEXES = (
    IndexModel([("workspace_id", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="list"),
    IndexModel([("at", ASCENDING)], name=_TTL_INDEX, expireAfterSeconds=AUDIT_DAYS * _SECONDS_PER_DAY),
)
_IDEMPOTENCY_INDEXES = (IndexModel([("expires_at", ASCENDING)], name=_TTL_INDEX, expireAfterSeconds=0),)
_REPLAY_INDEXES = (
    IndexModel([("workspace_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="list"),
    IndexModel([("status", ASCENDING), ("updated_at", ASCENDING)], name="take"),
    IndexModel([("finished_at", ASCENDING)], name=_TTL_INDEX, expireAfterSeconds=REPLAY_DAYS * _SECONDS_PER_DAY),
)
_DEAD_LETTER_REPLAY_INDEXES = (
    IndexModel([("likeness", ASCENDING), ("_id", DESCENDING)], name="like"),
    IndexModel([("updated_at", ASCENDING)], name=_TTL_INDEX, expireAfterSeconds=REPLAY_DAYS * _SECONDS_PER_DAY),
)
_HANDLED_LETTER_INDEXES = (
    IndexModel([("topic", ASCENDING), ("partition", ASCENDING), ("last", ASCENDING)], name="span"),
    IndexModel([("expires_at", ASCENDING)], name=_TTL_INDEX, expireAfterSeconds=0),
)
# Names of fields: see dispatcher/mongo/delivery_documents.py.
_DELIVERY_INDEXES = (
    IndexModel([("s", ASCENDING), ("c", DESCENDING), ("_id", DESCENDING), ("st", ASCENDING)], name="list"),
    IndexModel(
        [
            ("w", ASCENDING),
            ("h", ASCENDING),
            ("c", DESCENDING),
            ("_id", DESCENDING),
            ("s", ASCENDING),
            ("g.y", ASCENDING),
        ],
        name="dead_letters",
        partialFilterExpression={"st": "failed"},
    ),
    IndexModel([("r", ASCENDING), ("_id", ASCENDING)], name="reruns", partialFilterExpression={"r": {"$gt": ""}}),
    IndexModel(
        [("s", ASCENDING), ("c", DESCENDING)],
        name="waiting",
        partialFilterExpression={"st": {"$in": ["retrying", "pending"]}},
    ),
)


@dataclass(frozen=True, slots=True)
class Connection:
    """One process' connection to MongoDB.

    Attributes:
        client: The pool of connections; shared by everything in this process.
        database: Where the collections are; majority writes, reads from the primary.
    """

    client: AsyncIOMotorClient[Document]
    database: AsyncIOMotorDatabase[Document]

    @property
    def webhooks(self) -> Collection:
        """The webhooks; reads see only what a majority has."""
        return self.database.get_collection("webhooks", read_concern=ReadConcern("majority"))

    @property
    def deliveries(self) -> Collection:
        """The delivery log; reads see only what a majority has."""
        return self.database.get_collection("deliveries", read_concern=ReadConcern("majority"))

    @property
    def api_keys(self) -> Collection:
        """The API keys; reads see only what a majority has."""
        return self.database.get_collection("api_keys", read_concern=ReadConcern("majority"))

    @property
    def audit(self) -> Collection:
        """The changes that were made; reads see only what a majority has."""
        return self.database.get_collection("audit", read_concern=ReadConcern("majority"))

    @property
    def idempotency(self) -> Collection:
        """Requests with an idempotency key; reads see only what a majority has."""
        return self.database.get_collection("idempotency", read_concern=ReadConcern("majority"))

    @property
    def replays(self) -> Collection:
        """The replay jobs; reads see only what a majority has."""
        return self.database.get_collection("replays", read_concern=ReadConcern("majority"))

    @property
    def dead_letter_replays(self) -> Collection:
        """The operators' replays of dead letters; reads see only what a majority has."""
        return self.database.get_collection("dead_letter_replays", read_concern=ReadConcern("majority"))

    @property
    def handled_letters(self) -> Collection:
        """Which dead letters were dealt with; reads see only what a majority has."""
        return self.database.get_collection("handled_letters", read_concern=ReadConcern("majority"))

    @property
    def endpoint_health(self) -> Collection:
        """The webhooks that fail; reads see only what a majority has."""
        return self.database.get_collection("endpoint_health", read_concern=ReadConcern("majority"))

    async def ping(self) -> None:
        """Return when the primary answers.

        Raises:
            UnavailableError: It doesn't.
        """
        with unavailable_errors():
            await self.database.command("ping")

    def close(self) -> None:
        """Close every connection."""
        self.client.close()


def connect(settings: MongoSettings, *, silence_ms: int = SILENCE_MS) -> Connection:
    """Connect to MongoDB on the running loop; nothing is sent before the first operation.

    A server that can't be reached is waited for at most 5 s, and a majority at most 10 s. Options in the URI that are
    not set here stand as they are.

    Args:
        settings: Address, database and retention.
        silence_ms: How long a server that holds the connection may say nothing before it counts as out of reach.
    """
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
        settings.uri,
        io_loop=asyncio.get_running_loop(),
        appname="webhook-dispatcher",
        serverSelectionTimeoutMS=_SELECTION_TIMEOUT_MS,
        connectTimeoutMS=_CONNECT_TIMEOUT_MS,
        socketTimeoutMS=silence_ms,
        retryWrites=True,
        retryReads=True,
        datetime_conversion="DATETIME_MS",
    )
    concern = WriteConcern(w="majority", j=True, wtimeout=WRITE_TIMEOUT_MS)
    return Connection(client, client.get_database(settings.database, write_concern=concern))


async def ensure_indexes(connection: Connection, settings: MongoSettings) -> None:
    """Create the indexes that are missing, and take over a changed retention of the delivery log.

    Safe to be called by many processes at once.

    Raises:
        UnavailableError: MongoDB is out of reach.
    """
    with unavailable_errors():
        await connection.webhooks.create_indexes(list(_WEBHOOK_INDEXES))
        await connection.api_keys.create_indexes(list(_API_KEY_INDEXES))
        await connection.replays.create_indexes(list(_REPLAY_INDEXES))
        await connection.dead_letter_replays.create_indexes(list(_DEAD_LETTER_REPLAY_INDEXES))
        await connection.handled_letters.create_indexes(list(_HANDLED_LETTER_INDEXES))
        await connection.audit.create_indexes(list(_AUDIT_INDEXES))
        await connection.idempotency.create_indexes(list(_IDEMPOTENCY_INDEXES))
        await connection.deliveries.create_indexes(list(_DELIVERY_INDEXES))
        present = await connection.deliveries.index_information()
        if _FORMER_INDEX in present:
            await _drop_former_index(connection.deliveries)
        await _ensure_retention(
            connection.deliveries, present.get(_TTL_INDEX), settings.delivery_retention_days * _SECONDS_PER_DAY
        )


async def _drop_former_index(deliveries: Collection) -> None:
    """Drop the index whose work another does now, unless another process was faster."""
    try:
        await deliveries.drop_index(_FORMER_INDEX)
    except OperationFailure as error:
        if error.code != _INDEX_NOT_FOUND:
            raise


async def _ensure_retention(deliveries: Collection, present: Document | None, seconds: int) -> None:
    """Create the TTL index, or change its time where it is another: it can't be created twice with two times."""
    if present is None:
        await deliveries.create_index([("c", ASCENDING)], name=_TTL_INDEX, expireAfterSeconds=seconds)
    elif present["expireAfterSeconds"] != seconds:
        index = {"name": _TTL_INDEX, "expireAfterSeconds": seconds}
        await deliveries.database.command({"collMod": deliveries.name, "index": index})
