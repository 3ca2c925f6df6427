"""The delivery log's writer: bulk inserts of first outcomes, merging updates for everything else.

Commands are sent as they are, with documents that are encoded already. Both kinds are safe to repeat, so nothing is
lost by doing without retryable writes.
"""

import asyncio
import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from bson.errors import BSONError
from pymongo.errors import ConnectionFailure, DocumentTooLarge, OperationFailure

from dispatcher.core.delivery_log import LogEntry, LoggedState, legible
from dispatcher.core.errors import UnavailableError
from dispatcher.mongo.absence import is_broken_connection, is_transient_code, unavailable_errors
from dispatcher.mongo.client import MAJORITY, Collection, Document
from dispatcher.mongo.delivery_documents import STATE_FIELDS, merge_statement, state_of
from dispatcher.mongo.delivery_encoding import encode_entry

MAX_BATCH_ENTRIES = 1_000
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_STATES = 500
ENCODED_AT_ONCE = 50
"""Entries that are encoded before the loop turns: some tenths of a millisecond."""

_DUPLICATE_KEY = 11_000
_MERGE_ROUNDS = 5
_NOT_ENCODABLE = (BSONError, UnicodeError, struct.error, DocumentTooLarge)

_log = structlog.get_logger(__name__)

Refusals = list[tuple[LogEntry, int]]
"""Entries that MongoDB itself refused, and its error code (0: the entry can't be encoded, or isn't read)."""


class _Form(NamedTuple):
    """How entries are written: the command, what its list is called, and what stands in it."""

    command: str
    parts: str
    encode: Callable[[LogEntry], Any]


_INSERT = _Form("insert", "documents", encode_entry)
"""First outcomes."""
_MERGE = _Form("update", "updates", merge_statement)


class MongoDeliveryLog:
    """Writes the delivery log and answers what it holds; implements `dispatcher.ports.DeliveryLogWriter`.

    Args:
        deliveries: The collection.

    Attributes:
        given_up: Entries given up since the start.
    """

    def __init__(self, deliveries: Collection) -> None:
        self.given_up = 0
        self._deliveries = deliveries
        self._database = deliveries.database

    async def write(self, entries: Sequence[LogEntry]) -> int:
        """Write entries; when it returns they are durable (majority, journaled).

        An entry that MongoDB itself refuses is written once more without response body and error text, then given
        up and logged.

        Returns:
            How many entries were given up.

        Raises:
            UnavailableError: MongoDB is out of reach; nothing is known of the entries, write them again.
        """
        given_up = 0
        for batch in _batches(entries):
            given_up += await self._write_batch(batch)
        self.given_up += given_up
        return given_up

    async def states(self, delivery_ids: Sequence[str]) -> Mapping[str, LoggedState]:
        """Return what the log holds of these deliveries (primary, majority); unknown ones are missing.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        states: dict[str, LoggedState] = {}
        with unavailable_errors():
            for start in range(0, len(delivery_ids), MAX_STATES):
                wanted = {"_id": {"$in": list(delivery_ids[start : start + MAX_STATES])}}
                rows = await self._deliveries.find(wanted, STATE_FIELDS).to_list(length=None)
                states.update((row["_id"], state_of(row)) for row in rows)
        return states

    async def _write_batch(self, batch: Sequence[LogEntry]) -> int:
        firsts = [entry for entry in batch if not entry.run and entry.attempt <= 1]
        later = [entry for entry in batch if entry.run or entry.attempt > 1] if len(firsts) < len(batch) else []
        refused: Refusals = []
        for entry, code in await self._send(firsts, _INSERT):
            if code == _DUPLICATE_KEY:
                later.append(entry)
            else:
                refused.append((entry, code))
        refused += await self._merge(later)
        if not refused:
            return 0
        lost = await self._merge([_bare(entry) for entry, _ in refused])
        for entry, code in lost:
            _log.error("log entry given up", delivery_id=entry.delivery_id, attempt=entry.attempt, code=code)
        return len(lost)

    async def _merge(self, entries: Sequence[LogEntry]) -> Refusals:
        """Merge entries; two processes that store the same delivery first make one of them try again."""
        refused: Refusals = []
        for _ in range(_MERGE_ROUNDS):
            again = []
            for entry, code in await self._send(entries, _MERGE):
                if code == _DUPLICATE_KEY:
                    again.append(entry)
                else:
                    refused.append((entry, code))
            if not again:
                return refused
            entries = again
        raise UnavailableError("MongoDB keeps refusing merges as duplicates; write the entries again")

    async def _send(self, entries: Sequence[LogEntry], form: _Form) -> Refusals:
        """Send one command for all entries; where it is refused as a whole, halve until the culprit stands alone."""
        if not entries:
            return []
        try:
            answer = await self._run(await self._command(entries, form))
        except (OperationFailure, *_NOT_ENCODABLE) as error:
            if len(entries) == 1:
                return [(entries[0], getattr(error, "code", None) or 0)]
            half = len(entries) // 2
            return await self._send(entries[:half], form) + await self._send(entries[half:], form)
        return _refusals(entries, answer)

    async def _run(self, command: Document) -> Document:
        """Run a command, twice where only the connection had broken.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            try:
                answer: Document = await self._database.command(command)
            except ConnectionFailure as error:
                if not is_broken_connection(error):
                    raise
                answer = await self._database.command(command)
        return answer

    async def _command(self, entries: Sequence[LogEntry], form: _Form) -> Document:
        encoded: list[Any] = []
        for start in range(0, len(entries), ENCODED_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            encoded += map(form.encode, entries[start : start + ENCODED_AT_ONCE])
        return {form.command: self._deliveries.name, "ordered": False, "writeConcern": MAJORITY, form.parts: encoded}


def _refusals(entries: Sequence[LogEntry], answer: Document) -> Refusals:
    """Read a write command's answer.

    Raises:
        UnavailableError: It isn't durable, or the server was leaving.
    """
    errors: list[dict[str, Any]] = answer.get("writeErrors", [])
    concern = answer.get("writeConcernError")
    if concern is not None:
        raise UnavailableError(f"MongoDB's majority didn't acknowledge in time ({concern.get('errmsg', '')[:200]})")
    for error in errors:
        if is_transient_code(error["code"]):
            raise UnavailableError(f"MongoDB can't write for now ({error.get('errmsg', '')[:200]})")
    return [(entries[error["index"]], error["code"]) for error in errors]


def _bare(entry: LogEntry) -> LogEntry:
    """Return the entry without what may have made MongoDB refuse it."""
    return dataclasses.replace(
        entry,
        event_id=legible(entry.event_id),
        source=legible(entry.source),
        reason=legible(entry.reason),
        error="",
        response_body=b"",
    )


def _batches(entries: Sequence[LogEntry]) -> Iterator[Sequence[LogEntry]]:
    """Cut entries into batches that stay well below the bounds of one message."""
    start, size = 0, 0
    for index, entry in enumerate(entries):
        weight = len(entry.response_body) + len(entry.source)
        if index - start >= MAX_BATCH_ENTRIES or (size + weight > MAX_BATCH_BYTES and index > start):
            yield entries[start:index]
            start, size = index, 0
        size += weight
    if start < len(entries):
        yield entries[start:]
