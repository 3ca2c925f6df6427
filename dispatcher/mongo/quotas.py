"""Store something of which a workspace may have so many, however many are stored at the same time.

Counting and storing are one transaction, and all of one workspace's take turns: each writes the same small document,
so of two that run at once MongoDB lets one go on and has the other begin anew, with what the first has stored. Nothing
is counted along, so there is no counter that a crash or a deletion could make wrong.

Source: MongoDB manual, "Transactions", "In-progress transactions and write conflicts".
"""

import asyncio
from contextlib import suppress

from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from dispatcher.core.errors import UnavailableError
from dispatcher.mongo.client import WRITE_TIMEOUT_MS, Collection, Document

LOCKS = "quota_turns"
"""The collection of the small documents: one for each workspace and collection that is counted."""
LONGEST_SECONDS = 20.0
"""So long it is tried while others are faster."""


async def insert_within(
    collection: Collection, document: Document, at_most: int | None, counted: Document | None = None
) -> bool:
    """Store a document, unless its workspace has as many of them as it may.

    Args:
        collection: Where to.
        document: What; it has a `workspace_id`.
        at_most: How many there may be; None: any number.
        counted: Which of the workspace's count; None: all.

    Returns:
        Whether it was stored.

    Raises:
        UnavailableError: Others were always faster, for `LONGEST_SECONDS`.
        PyMongoError: As the driver raises it; also where the document's id is taken.
    """
    if at_most is None:
        await collection.insert_one(document)
        return True
    workspace_id = document["workspace_id"]
    wanted = {"workspace_id": workspace_id, **(counted or {})}
    turn = {"_id": f"{collection.name}:{workspace_id}"}
    locks = collection.database[LOCKS]
    # Outside the transaction: there, of two that make it one would fail for good.
    with suppress(DuplicateKeyError):  # another has made it: that is all that is wanted
        await locks.update_one(turn, {"$setOnInsert": {"turns": 0}}, upsert=True)

    async def store(session: AsyncIOMotorClientSession) -> bool:
        await locks.update_one(turn, {"$inc": {"turns": 1}}, session=session)
        found = await collection.count_documents(wanted, limit=at_most, session=session)
        if found >= at_most:
            return False
        await collection.insert_one(document, session=session)
        return True

    try:
        async with asyncio.timeout(LONGEST_SECONDS), await collection.database.client.start_session() as session:
            stored: bool = await session.with_transaction(
                store,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern(w="majority", j=True, wtimeout=WRITE_TIMEOUT_MS),
            )
    except TimeoutError:
        raise UnavailableError(
            f"one of {collection.name} waited for its turn in vain for {LONGEST_SECONDS:g} s; send it again",
            shown="too many of these are made in this workspace at once; send the request again",
        ) from None
    return stored
