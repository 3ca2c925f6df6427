"""How the delivery log's commands are made."""

import asyncio
from types import SimpleNamespace

from dispatcher.mongo.delivery_log import _INSERT, ENCODED_AT_ONCE, MongoDeliveryLog
from tests.unit.mongo.samples import entry


async def test_the_loop_turns_while_many_entries_are_encoded():
    """A thousand entries are encoded in portions, and are all in the command, in their order."""
    log = MongoDeliveryLog(SimpleNamespace(name="deliveries", database=None))
    entries = [entry(delivery_id=f"del_{number}") for number in range(10 * ENCODED_AT_ONCE)]
    made = asyncio.ensure_future(log._command(entries, _INSERT))
    turns = 0
    while not made.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 10
    assert [document["_id"] for document in (await made)["documents"]] == [each.delivery_id for each in entries]
