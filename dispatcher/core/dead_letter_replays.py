"""Replays of dead letters: what an operator asks for, what becomes of each letter, and the record that a replay is.

A replay's id is the run of all that it sends, as of any replay (`dispatcher.core.reruns`): it stands on each record of
the replay topic, and the delivery log tells by it what went out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.delivery_log import DeliveryStatus, LoggedState
from dispatcher.core.reruns import SourceSpan

DEFAULT_RATE = 500.0


class Fate(StrEnum):
    """What becomes of a dead letter that was chosen: it is sent, or why not."""

    REPLAYED = "replayed"
    """It goes to the replay topic; by the end of a replay: it went there."""
    DELIVERED = "delivered_since"
    """The delivery log shows the delivery as delivered."""
    UNDER_WAY = "under_way"
    """A later run of the delivery waits or is tried."""
    HANDLED = "handled"
    """It was replayed or purged before."""
    SUPERSEDED = "superseded"
    """A later run of the delivery ended in a dead letter of its own, or the letter is there twice."""
    WEBHOOK_DELETED = "webhook_deleted"
    WEBHOOK_INACTIVE = "webhook_inactive"
    """Its webhook is inactive or disabled, so a worker would only skip it."""
    MISMATCH = "workspace_mismatch"
    """Webhook and event are of different workspaces."""
    NO_EVENT = "no_event"
    """It stands for a source record that is no event."""
    NO_RECORD = "no_source_record"
    """It stands for a delivery, or for a record of an own topic: nothing that could become an event."""
    GONE = "gone"
    """The event's record is on its source topic no more, or another one is."""
    UNREADABLE = "unreadable"
    """Its headers or its event can't be read."""
    STILL_BAD = "still_no_event"
    """By today's settings and catalogue the source record still is no event."""
    UNWANTED = "unwanted"
    """The source record is an event now, and no active webhook wants it."""
    REFUSED = "refused"
    """Kafka will not take its record: too large, as a rule."""


@dataclass(frozen=True, slots=True)
class ReplayChoice:
    """Which dead letters are replayed, and how.

    Attributes:
        wanted: Which.
        to_subscription: Where to, instead of each one's own webhook; `wh_…`.
        as_events: Whether source records that were no events are read again and sent as the events that they are now;
            else deliveries are sent again.
        keeps_attempts: Whether the attempts made count on (one more is made in any case); else the schedule begins
            anew.
        again: Whether those go out as well that an earlier replay of the same range was about, that were delivered
            since, or that are under way.
        rate: Deliveries a second, at most.
        most: So many dead letters at most; None: all.
    """

    wanted: DeadLetterFilter
    to_subscription: str | None = None
    as_events: bool = False
    keeps_attempts: bool = False
    again: bool = False
    rate: float = DEFAULT_RATE
    most: int | None = None

    @property
    def likeness(self) -> tuple[str, ...]:
        """What two replays have in common that may be of the same range: the filters but for the times, and the target.

        The same range it is where letters that the second one chooses lie between the offsets of the first.
        """
        wanted = self.wanted
        texts = (wanted.workspace_id, wanted.subscription_id, wanted.event_type, wanted.reason, wanted.status)
        return (*(text or "" for text in texts), self.to_subscription or "", "events" if self.as_events else "")


class ReplayStage(StrEnum):
    """Where a replay stands."""

    RUNNING = "running"
    """It runs, or its process died."""
    STOPPED = "stopped"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class LetterReplay:
    """One replay of dead letters. Times are unix milliseconds.

    Attributes:
        id: `rpl_…`.
        choice: What was asked for.
        created_at_ms: When it began.
        whole: The dead-letter topic as it was then: what the replay is about, partition by partition. Of one that is
            done before it came to the end (`most`), what it went through.
        left: What of that it still has to read.
        replay_ends: Partition to end offset of the replay topic at that time: all that it sends lies behind.
        selected: How many dead letters were to go out.
        fates: What became of the letters before `left`.
        stage: Where it stands.
    """

    id: str
    choice: ReplayChoice
    created_at_ms: int
    whole: tuple[SourceSpan, ...]
    left: tuple[SourceSpan, ...]
    replay_ends: Mapping[int, int]
    selected: int
    fates: Mapping[Fate, int] = field(default_factory=dict)
    stage: ReplayStage = ReplayStage.RUNNING

    @property
    def replayed(self) -> int:
        """How many dead letters went out."""
        return self.fates.get(Fate.REPLAYED, 0)

    def covers(self, letter: DeadLetter) -> bool:
        """Say whether a letter is one that the replay was to go through.

        One from after it began is not, whatever its place: the topic was made anew.
        """
        return (
            letter.timestamp_ms < self.created_at_ms
            and self.choice.wanted.wants(letter)
            and any(
                span.partition == letter.partition and span.position <= letter.offset < span.end for span in self.whole
            )
        )


def rest(spans: Iterable[SourceSpan], partition: int, position: int) -> tuple[SourceSpan, ...]:
    """Return what is left of spans, which are read one after the other, behind a position in one of them."""
    left: list[SourceSpan] = []
    reached = False
    for span in spans:
        if span.partition == partition:
            reached = True
            if position < span.end:
                left.append(SourceSpan(span.topic, partition, max(position, span.position), span.end))
        elif reached:
            left.append(span)
    return tuple(left)


def gone_through(whole: Iterable[SourceSpan], left: Iterable[SourceSpan]) -> tuple[SourceSpan, ...]:
    """Return what of spans is behind, where `left` of them is not (`rest`)."""
    ahead = {span.partition: span.position for span in left}
    behind = (replace(span, end=min(ahead.get(span.partition, span.end), span.end)) for span in whole)
    return tuple(span for span in behind if span.position < span.end)


def hindrance(logged: LoggedState | None, letter_run: str | None, run: str, *, again: bool) -> Fate | None:
    """Say why a delivery is not to be sent in a replay's run, by what the delivery log holds of it.

    Args:
        logged: That; None where it holds nothing.
        letter_run: The run that ended in the dead letter; None where that says nothing (another webhook's delivery, or
            a fresh event's).
        run: The replay's.
        again: Whether deliveries go out that were delivered since or are under way.

    Returns:
        None where it is to be sent.
    """
    if logged is None or (again and logged.run < run):
        return None
    if logged.run >= run:
        return Fate.SUPERSEDED
    if logged.status is DeliveryStatus.DELIVERED:
        return Fate.DELIVERED
    if logged.status in (DeliveryStatus.PENDING, DeliveryStatus.RETRYING):
        return Fate.UNDER_WAY
    failed_later = logged.status is DeliveryStatus.FAILED and letter_run is not None and logged.run > letter_run
    return Fate.SUPERSEDED if failed_later else None
