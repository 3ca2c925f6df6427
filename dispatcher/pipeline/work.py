"""What the pipeline carries about: partitions, records being worked on, deliveries.

These objects are made once a record or a delivery, so they are slotted and plain.
"""

import asyncio
from collections import deque
from typing import Protocol

from dispatcher.core.model import Event, Origin, Subscription
from dispatcher.core.offsets import OffsetTracker
from dispatcher.ports import CommitPoint, ConsumedRecord, Span, UnreadableRecord

OPEN = "open"
"""Commit metadata of a partition that somebody works on: after a crash, its records may be done in part.

`open 1234` says besides that records before offset 1234 were taken up.
"""

CLEAN = "clean"
"""Commit metadata of a partition that was left with nothing unfinished."""


def origin_of(record: ConsumedRecord) -> Origin:
    """Return where a record of a source topic stands."""
    return Origin(record.topic, record.partition, record.offset, record.timestamp, record.key)


class Window:
    """The payload bytes that a process still needs.

    Args:
        limit_bytes: The bound; a record that is taken up may exceed it once.
    """

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int = 64 * 1024 * 1024) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def has_room(self) -> bool:
        """True while another record may be taken up."""
        return self.held_bytes < self.limit_bytes


class PartitionState:
    """One assigned partition: what was fetched and not taken up yet, and what is incomplete.

    Args:
        topic: Its topic.
        partition: Its number.
        start: Where it is read from, and what was noted beside that position.
        lookups: How many deliveries that the log doesn't know are looked up before the rest is taken as new.

    Attributes:
        hold: Records not taken up yet, each with its due time in unix milliseconds (0: at once).
        held_bytes: Their bytes.
        expanding: How many of the records being worked on have a fan-out that isn't made to its end.
        lookups_left: What is left of `lookups`; 0 after a clean end.
        noted: The position up to which a note beside a commit says that records were taken up, its own or a former
            owner's.
        working_bytes: What the incomplete records take of the window.
        produces: What was produced for them and isn't acknowledged yet.
        waiting: How many of its deliveries wait for their lane beyond that lane's queue.
        ended: True once the assignment is over.
    """

    __slots__ = (
        "_taken_up_to",
        "ended",
        "expanding",
        "held_bytes",
        "hold",
        "lookups_left",
        "noted",
        "partition",
        "produces",
        "topic",
        "tracker",
        "waiting",
        "working_bytes",
    )

    def __init__(self, topic: str, partition: int, start: CommitPoint, lookups: int) -> None:
        self.topic = topic
        self.partition = partition
        self.tracker = OffsetTracker(start.offset)
        self.hold: deque[tuple[int, ConsumedRecord | UnreadableRecord]] = deque()
        self.expanding = 0
        self.held_bytes = 0
        state, _, taken_up = start.metadata.partition(" ")
        self.lookups_left = lookups if state == OPEN else 0
        self._taken_up_to = int(taken_up) if lookups and taken_up.isdecimal() else start.offset
        self.noted = max(self._taken_up_to, start.offset)
        self.working_bytes = 0
        self.produces: set[asyncio.Future[None]] = set()
        self.waiting = 0
        self.ended = False

    def unknown_to_log(self, offset: int) -> None:
        """Note that the log doesn't know a delivery of a record that was looked up.

        Those that a former owner took up without a doubt don't count: they may have been moved elsewhere.
        """
        if self.lookups_left and offset >= self._taken_up_to:
            self.lookups_left -= 1

    @property
    def open_note(self) -> str:
        """What is to stand beside a commit while it is worked on."""
        taken_up = max(self.noted, self.tracker.position)
        return f"{OPEN} {taken_up}" if taken_up > self.tracker.committable() else OPEN

    @property
    def note(self) -> str:
        """What is to stand beside its last commit: a former owner's open end stays open until it is looked through."""
        return self.open_note if len(self.tracker) or self.lookups_left else CLEAN

    @property
    def waits_since_ms(self) -> int:
        """Since when its first unfinished record could have been worked on, unix milliseconds; 0: not known, or none.

        That is when it was written, or is due; a time to come where what is held isn't due yet.
        """
        if len(self.tracker):
            return self.tracker.oldest_ms()
        if not self.hold:
            return 0
        due, record = self.hold[0]
        return due or (0 if isinstance(record, UnreadableRecord) else record.timestamp)

    def hold_until_at_most(self, latest_ms: int) -> None:
        """Let what is held be due at this time at the latest, unix milliseconds."""
        self.hold = deque((min(due, latest_ms), record) for due, record in self.hold)

    def end(self, window: Window) -> None:
        """End the assignment: incomplete records are somebody else's now.

        Their bytes are given back, and what was produced for them and isn't acknowledged is withdrawn.
        """
        self.ended = True
        window.held_bytes -= self.working_bytes
        self.working_bytes = 0
        for future in list(self.produces):
            future.cancel()


class RecordWork:
    """One record being worked on: complete when each delivery that it stands for is.

    Args:
        partition: Where it was read.
        offset: Its offset.
        size_bytes: What it takes of the window.
        window: Where that is given back.
        since_ms: Since when it could have been worked on, unix milliseconds; 0: not known.
    """

    __slots__ = ("_open", "_window", "expanding", "offset", "partition", "size_bytes")

    def __init__(
        self, partition: PartitionState, offset: int, size_bytes: int, window: Window, since_ms: int = 0
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.size_bytes = size_bytes
        self._window = window
        self._open = 1
        self.expanding = False
        window.held_bytes += size_bytes
        partition.working_bytes += size_bytes
        partition.tracker.begin(offset, since_ms)

    def add(self, deliveries: int) -> None:
        """Note that the record stands for so many more deliveries."""
        self._open += deliveries

    def done(self) -> None:
        """Note that one delivery, or the reading of the record itself, is done."""
        self._open -= 1
        if self._open == 0:
            partition = self.partition
            if not partition.ended:
                partition.working_bytes -= self.size_bytes
                self._window.held_bytes -= self.size_bytes
            partition.tracker.complete(self.offset)


class Owner(Protocol):
    """Who reads records: a role.

    Attributes:
        active: Its deliveries that no outcome has settled yet.
    """

    active: "set[Delivery]"


class Delivery:
    """One delivery on its way through this process.

    Attributes:
        event: The event.
        subscription_id: `wh_…`.
        subscription: What to send with where the index doesn't hold it (it was looked up); else None until sent.
        id: `del_…`.
        attempt: Number of the next attempt, from 1.
        run: The replay's id, or empty.
        first_attempt_ms: When the first attempt was made; 0 where none was.
        parked_since_ms: Since when it waits for room; None where it doesn't.
        work: The record that it belongs to.
        role: The role that read the record.
        in_flight: True while an attempt is under way, or its end waits for the subscription to be disabled.
        held: True while it waits for its lane beyond that lane's queue.
        probe: True for an attempt that is to find out whether its lane's circuit may close.
        started_at: When its attempt began, by the lane clock.
        span: Its attempt in a trace; None where that isn't recorded, and before.
        given_away: True once the delivery was handed over: what its attempt brings changes nothing any more.
    """

    __slots__ = (
        "attempt",
        "event",
        "first_attempt_ms",
        "given_away",
        "held",
        "id",
        "in_flight",
        "parked_since_ms",
        "probe",
        "role",
        "run",
        "span",
        "started_at",
        "subscription",
        "subscription_id",
        "work",
    )

    def __init__(
        self, event: Event, subscription_id: str, subscription: Subscription | None, delivery_id: str, work: RecordWork,
        role: "Owner",
    ) -> None:  # fmt: skip
        self.event = event
        self.subscription_id = subscription_id
        self.subscription = subscription
        self.id = delivery_id
        self.attempt = 1
        self.run = ""
        self.first_attempt_ms = 0
        self.parked_since_ms: int | None = None
        self.work = work
        self.role = role
        self.in_flight = False
        self.given_away = False
        self.held = False
        self.probe = False
        self.started_at = 0.0
        self.span: Span | None = None
