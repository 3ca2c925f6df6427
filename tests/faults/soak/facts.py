"""What a run knows: what was published, what the endpoints saw, what Kafka and the delivery log hold. Data only.

Deliveries are known by their ids, which are the same wherever one turns up: in a request, a record, a letter, a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dispatcher.core.delivery_id import DeliveryIds

Step = tuple[str, int]
"""A delivery's id and the number of an attempt."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event that was given to the publisher."""

    id: str
    type: str
    workspace: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One webhook and what is expected of it.

    Attributes:
        id: `wh_…`.
        path: Where it sends to.
        workspace: Whose it is.
        types: `*`, `user.*`, or whole event types.
        max_attempts: Attempts a delivery may take.
        ends: How its deliveries may end: `delivered`, or reasons of dead letters. With `gone`, also by being skipped or
            never matched, once the endpoint has answered 410.
    """

    id: str
    path: str
    workspace: str
    types: tuple[str, ...]
    max_attempts: int
    ends: frozenset[str]

    def wants(self, event: Event) -> bool:
        """Whether an event must be delivered to it."""
        return event.workspace == self.workspace and any(
            each in {"*", event.type} or (each.endswith(".*") and event.type.startswith(each[:-1]))
            for each in self.types
        )


@dataclass(slots=True)
class Request:
    """What is remembered of a request: no body, since a long run has a million of them.

    Attributes:
        delivery_id: Its `webhook-id`.
        path: As it stood in the request line.
        event_id: The id in its body.
        attempt: Its `X-Webhook-Attempt`.
        at: When it was complete, unix seconds.
        answered: The status that was written, and when, unix seconds; None while there was none.
    """

    delivery_id: str
    path: str
    event_id: str
    attempt: int
    at: float
    answered: tuple[int, float] | None = None

    @property
    def status(self) -> int:
        """What it was answered with; 0 where it wasn't."""
        return 0 if self.answered is None else self.answered[0]

    @property
    def accepted(self) -> bool:
        """Whether it was answered with 2xx."""
        return self.answered is not None and 200 <= self.answered[0] < 300


@dataclass(frozen=True, slots=True)
class Record:
    """A record of an own topic that asks for an attempt.

    Attributes:
        role: `overflow`, `retry.300ms`…
        step: The delivery, and the attempt that it asks for.
        reason: Why it is there; empty where an attempt failed.
        at: When it was produced, unix seconds.
    """

    role: str
    partition: int
    offset: int
    step: Step
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, produced `at`; `delivery_id` is empty for a source record that never became a delivery."""

    delivery_id: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Logged:
    """A delivery as the log has it.

    Attributes:
        status: `delivered`, `failed`…
        reason: Why it failed or was skipped; empty otherwise.
        codes: The status code of each attempt by its number, 0 where no answer came.
    """

    status: str
    reason: str
    codes: Mapping[int, int]


@dataclass(slots=True)
class Disruption:
    """A stretch of time in which something was broken.

    Attributes:
        name: What.
        began_at: Unix seconds.
        ended_at: When all was well again; infinite while it isn't.
        unsettled: The attempts that were under way, or ended and not in the log yet, at some time of it.
        excuses: Whether what was unsettled may be sent again because of it.
    """

    name: str
    began_at: float
    ended_at: float = float("inf")
    unsettled: set[Step] = field(default_factory=set)
    excuses: bool = True


@dataclass(slots=True)
class Facts:
    """Everything that a verdict looks at.

    Attributes:
        endpoints: By path.
        events: All that were given to the publisher, by id.
        acknowledging: Ids that Kafka has acknowledged since the topics were read last.
        acknowledged: Those that it had before: they must stand there.
        places: Where on the source topic which event stands: its partition and offset.
        placed: How often each event stands there.
        pairs: By delivery id, the event and the endpoint's path of each pair that matches; it must be delivered once
            the event stands on its topic.
        requests: In the order of arrival.
        records: Of own topics.
        letters: Of the dead-letter topic.
        committed: By role and partition; read before what is in the topics, so that whatever was written in between
            counts as waiting.
        log: By delivery id; None where it wasn't read.
        disruptions: In their order.
        unchecked: When workers said that they send without asking the log, unix seconds.
    """

    endpoints: dict[str, Endpoint]
    events: dict[str, Event] = field(default_factory=dict)
    acknowledging: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    places: dict[tuple[int, int], str] = field(default_factory=dict)
    placed: dict[str, int] = field(default_factory=dict)
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    log: dict[str, Logged] | None = None
    disruptions: list[Disruption] = field(default_factory=list)
    unchecked: list[float] = field(default_factory=list)

    def publish(self, event: Event) -> list[str]:
        """Note that an event is given to the publisher; give the deliveries that are to come of it."""
        ids = DeliveryIds(event.workspace, "", event.id)
        made = {ids.of(each.id): (event.id, each.path) for each in self.endpoints.values() if each.wants(event)}
        self.events[event.id] = event
        self.pairs.update(made)
        return list(made)

    def place(self, partition: int, offset: int, event_id: str) -> None:
        """Note that an event stands on the source topic."""
        self.places[partition, offset] = event_id
        self.placed[event_id] = self.placed.get(event_id, 0) + 1

    def copied(self) -> "Facts":
        """Give what is known now, for a verdict in another thread: it stays as it is."""
        return replace(
            self,
            acknowledged=set(self.acknowledged),
            places=dict(self.places),
            placed=dict(self.placed),
            pairs=dict(self.pairs),
            requests=list(self.requests),
            records=list(self.records),
            letters=list(self.letters),
            committed=dict(self.committed),
            unchecked=list(self.unchecked),
            disruptions=[replace(each, unsettled=set(each.unsettled)) for each in self.disruptions],
        )
