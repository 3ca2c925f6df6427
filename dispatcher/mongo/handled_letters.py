"""Which dead letters were dealt with, in MongoDB: marks that are only ever added, and expire.

One document marks up to 100,000 letters of one partition: their offsets and times as compressed differences, a few
bytes a letter at most. Two commands that mark at the same time never meet, and one that marks twice changes nothing. A
mark outlives its letters: the topic may keep a letter for longer than its retention says, by as long as the segment
that it lies in is written to.
"""

from collections.abc import Sequence

from bson.datetime_ms import DatetimeMS

from dispatcher.core.handled_letters import HandledLetters, HandledMark
from dispatcher.core.reruns import SourceSpan
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection

OUTLIVES_DAYS = 30
"""So much longer than the topic's retention are marks kept."""

_DAY_MS = 86_400_000


class MongoHandledLetters:
    """Keeps which dead letters were dealt with.

    Args:
        handled: The collection; majority reads and writes.
        retention_days: How long the dead-letter topic keeps its records.
    """

    def __init__(self, handled: Collection, retention_days: int) -> None:
        self._handled = handled
        self._kept_ms = (retention_days + OUTLIVES_DAYS) * _DAY_MS

    async def mark(self, marks: Sequence[HandledMark], by: str, now_ms: int) -> None:
        """Store marks; when it returns they are durable.

        Args:
            marks: From `dispatcher.core.handled_letters.marks_of`.
            by: What dealt with them: `purge`, or a replay's id.
            now_ms: Unix milliseconds.

        Raises:
            UnavailableError: MongoDB is out of reach; some of them may be stored: marking again is right.
        """
        if not marks:
            return
        documents = [
            {
                "topic": mark.topic,
                "partition": mark.partition,
                "first": mark.first,
                "last": mark.last,
                "count": mark.count,
                "offsets": mark.offsets,
                "times": mark.times,
                "by": by,
                "at": DatetimeMS(now_ms),
                "expires_at": DatetimeMS(now_ms + self._kept_ms),
            }
            for mark in marks
        ]
        with unavailable_errors():
            await self._handled.insert_many(documents, ordered=False)

    async def load(self, spans: Sequence[SourceSpan]) -> HandledLetters:
        """Return the marked letters of spans of the dead-letter topic; some around them may be among them.

        Raises:
            UnavailableError: MongoDB is out of reach.
            UndecodableError: A mark can't be read.
        """
        found = HandledLetters()
        with unavailable_errors():
            for span in spans:
                query = {
                    "topic": span.topic,
                    "partition": span.partition,
                    "last": {"$gte": span.position},
                    "first": {"$lt": span.end},
                }
                # A topic that was made anew has other letters at the same places: their marks are the later ones.
                async for stored in self._handled.find(query).sort([("at", 1), ("_id", 1)]).allow_disk_use(True):
                    found.add_mark(
                        HandledMark(
                            stored["topic"],
                            stored["partition"],
                            stored["first"],
                            stored["last"],
                            stored["count"],
                            stored["offsets"],
                            stored["times"],
                        )
                    )
        return found
