"""Keeps the index of subscriptions as MongoDB has them: one load, then the change stream.

The cluster time is read before the load, and the stream is opened at that time: what changes during the load comes
again in the stream, and the index keeps the newer revision. A lost stream is resumed by its token; where the server
has no history for it any more, everything is loaded again and what is gone is removed.

Source: MongoDB manual, "Change Streams" (startAtOperationTime, resume tokens, invalidate events).
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from bson.timestamp import Timestamp
from pymongo.errors import CursorNotFound, PyMongoError

from dispatcher.core.matching import SubscriptionIndex
from dispatcher.mongo.absence import is_absence
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.webhook_documents import SUBSCRIPTION_FIELDS, BrokenWebhookError, SubscriptionReader
from dispatcher.ports import Clock

_LOAD_BATCH = 1_000
_LOAD_SLICE = 100
_AWAIT_MS = 500
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_CHANGES = [{"$project": {"operationType": 1, "documentKey": 1, "fullDocument": 1, "clusterTime": 1}}]
_STORED = frozenset({"insert", "update", "replace"})
_REMOVED = "delete"
_RESUMABLE = "ResumableChangeStreamError"

_log = structlog.get_logger(__name__)


class _StreamOverError(Exception):
    """The stream ended for good (the collection was dropped or renamed); load again."""


class SubscriptionFeed:
    """Feeds the index; run it as one task for the life of the process.

    Args:
        webhooks: The collection; its client's replica set must have a primary.
        index: What is kept current. Nothing else may remove from it.
        clock: Time, for the staleness.
        on_change: Told of each subscription that changed or went, after the index has it; not during the first load.
    """

    def __init__(
        self,
        webhooks: Collection,
        index: SubscriptionIndex,
        clock: Clock,
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        # A text that isn't UTF-8 must break its own document only, not the batch that it came in.
        lenient = webhooks.codec_options.with_options(unicode_decode_error_handler="replace")
        self._webhooks = webhooks.with_options(codec_options=lenient)
        self._index = index
        self._clock = clock
        self._on_change = on_change
        self._reader = SubscriptionReader()
        self._broken: set[str] = set()
        self._ready = asyncio.Event()
        self._token: Mapping[str, Any] | None = None
        self._loaded_at: Timestamp | None = None
        self._proven_at = -math.inf
        self._polled = False
        self._loads = 0

    @property
    def size(self) -> int:
        """How many subscriptions the index holds."""
        return len(self._index)

    @property
    def broken(self) -> int:
        """How many stored webhooks can't be read at present, and so receive nothing."""
        return len(self._broken)

    @property
    def loads(self) -> int:
        """How many times everything was loaded."""
        return self._loads

    def staleness_seconds(self, now: float) -> float:
        """Return the age of the last proof that the index is current; infinite before the first load.

        Args:
            now: The clock's monotonic seconds.
        """
        return max(0.0, now - self._proven_at)

    async def ready(self) -> None:
        """Return when everything was loaded and the stream is open."""
        await self._ready.wait()

    async def run(self) -> None:
        """Load and follow, for ever; MongoDB's absence is waited out."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._polled = False
            try:
                if self._loaded_at is None:
                    await self._load()
                await self._follow()
            except _StreamOverError as error:
                self._lose(error)
            except PyMongoError as error:
                if not _can_resume(error):
                    self._lose(error)
                else:
                    _log.warning("change stream interrupted; resuming", problem=str(error)[:200])
            # A load alone is no progress: where the stream can't be opened, loads must not follow one another.
            pause = _FIRST_PAUSE_SECONDS if self._polled else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    def _lose(self, error: Exception) -> None:
        """Forget where the stream stood, so that everything is loaded again."""
        self._token = self._loaded_at = None
        _log.warning("change stream lost; loading all webhooks again", problem=str(error)[:200])

    async def _load(self) -> None:
        """Read the cluster time, then everything at or after it; remove what is no longer there."""
        began = self._clock.monotonic()
        first = self._loads == 0
        unseen = {subscription.id for subscription in self._index}
        async with await self._webhooks.database.client.start_session(causal_consistency=True) as session:
            await self._webhooks.database.command("ping", session=session)
            loaded_at: Timestamp | None = session.operation_time
            cursor = self._webhooks.find({}, SUBSCRIPTION_FIELDS, batch_size=_LOAD_BATCH, session=session)
            try:
                while rows := await cursor.to_list(length=_LOAD_BATCH):
                    await self._take_batch(rows, unseen, tell=not first)
            finally:
                await cursor.close()
        for gone in unseen:
            self._remove(gone)
        self._loads += 1
        self._token, self._loaded_at = None, loaded_at
        self._proven_at = max(self._proven_at, began)
        _log.info("webhooks loaded", size=self.size, broken=self.broken)

    async def _take_batch(self, rows: Sequence[Document], unseen: set[str], *, tell: bool) -> None:
        for start in range(0, len(rows), _LOAD_SLICE):
            for stored in rows[start : start + _LOAD_SLICE]:
                unseen.discard(str(stored["_id"]))
                self._take(stored, authoritative=True, tell=tell)
            await asyncio.sleep(0)  # deliveries go on during a later load

    async def _follow(self) -> None:
        """Apply changes until the stream breaks."""
        start: dict[str, Any] = {"start_at_operation_time": self._loaded_at}
        if self._token is not None:
            start = {"resume_after": self._token}
        watch = self._webhooks.watch(_CHANGES, full_document="updateLookup", max_await_time_ms=_AWAIT_MS, **start)
        async with watch as stream:
            self._ready.set()
            while stream.alive:
                asked_at = self._clock.monotonic()
                change = await stream.try_next()
                self._polled = True
                if change is not None:
                    self._apply(change)
                    self._prove(asked_at - self._age_seconds(change))
                else:
                    self._prove(asked_at)
                if stream.resume_token is not None:
                    self._token = stream.resume_token
        raise _StreamOverError("the server closed the change stream")

    def _apply(self, change: Mapping[str, Any]) -> None:
        kind = change["operationType"]
        if kind in _STORED:
            stored = change.get("fullDocument")
            # It is looked up later than it changed: where it is gone by then, its deletion is on the way.
            if stored is None:
                self._remove(str(change["documentKey"]["_id"]))
            else:
                self._take(stored)
        elif kind == _REMOVED:
            self._remove(str(change["documentKey"]["_id"]))
        else:
            raise _StreamOverError(f"the collection saw {kind}")

    def _take(self, stored: Document, *, authoritative: bool = False, tell: bool = True) -> None:
        """Put one stored webhook into the index.

        Args:
            stored: The document.
            authoritative: Take it even where the index holds a newer revision: the database was restored.
            tell: Call `on_change` where the index changed.
        """
        try:
            subscription = self._reader.read(stored)
        except BrokenWebhookError as error:
            _log.error("stored webhook can't be read; it receives nothing", problem=str(error))
            self._remove(str(stored["_id"]))
            self._broken.add(str(stored["_id"]))
            return
        self._broken.discard(subscription.id)
        known = self._index.get(subscription.id)
        if authoritative and known is not None and known.revision > subscription.revision:
            self._index.remove(subscription.id)
        unchanged = authoritative and known is not None and known.revision == subscription.revision
        if self._index.put(subscription) and tell and not unchanged:
            self._tell(subscription.id)

    def _remove(self, subscription_id: str) -> None:
        self._broken.discard(subscription_id)
        if self._index.get(subscription_id) is not None:
            self._index.remove(subscription_id)
            self._tell(subscription_id)

    def _tell(self, subscription_id: str) -> None:
        if self._on_change is not None:
            self._on_change(subscription_id)

    def _age_seconds(self, change: Mapping[str, Any]) -> float:
        """Return how long ago a change was made at least: one from a backlog proves less than one just made."""
        made_at: Timestamp = change["clusterTime"]
        return max(0.0, self._clock.now_ms() / 1000 - made_at.time - 1)

    def _prove(self, at: float) -> None:
        self._proven_at = max(self._proven_at, at)


def _can_resume(error: PyMongoError) -> bool:
    """Say whether the token is still good: MongoDB was out of reach, or the server says so."""
    return is_absence(error) or isinstance(error, CursorNotFound) or error.has_error_label(_RESUMABLE)
