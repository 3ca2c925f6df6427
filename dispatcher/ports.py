"""What operations and pipeline need of the outside, as Protocols.

The real things are in `dispatcher.kafka`, `dispatcher.mongo` and `dispatcher.http`; one contract suite runs on
them and on the tests' fakes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from dispatcher.core.dead_letter_replays import LetterReplay, ReplayChoice
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.delivery_log import FailedFilter, LogEntry, LoggedDelivery, LoggedState
from dispatcher.core.endpoint_health import FailingEndpoint, HealthNote
from dispatcher.core.exchange import Request, Response
from dispatcher.core.model import Event, ReadHeaders, RecordHeaders, Subscription, Webhook
from dispatcher.core.reruns import ReplayJob, SourceSpan
from dispatcher.core.sealing import SealPurpose

T = TypeVar("T")


class Clock(Protocol):
    """Time, as far as it is asked for outside the core."""

    def now_ms(self) -> int:
        """Return unix milliseconds."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Sender(Protocol):
    """Sends requests to endpoints; see `dispatcher.http.sender`."""

    def send(self, request: Request, done: Callable[[Response], None]) -> None:
        """Send a request; `done` is called exactly once, from the loop, never from within this call."""


class Span(Protocol):
    """One step of a delivery in a distributed trace; it is told of once it has ended.

    Attributes:
        traceparent: What makes the next step its child (W3C Trace Context).
    """

    @property
    def traceparent(self) -> str:
        """See the class."""

    def end(self, *, status: int = 0, matches: int | None = None, error: str = "") -> None:
        """End it now.

        Args:
            status: The status code that came; 0: none.
            matches: How many subscriptions an event goes to; None: that isn't what the step is about.
            error: What went wrong, in words; empty: nothing.
        """


class Tracer(Protocol):
    """Follows events through this process; see `dispatcher.app.tracing`. Nothing here waits.

    Each method begins a span below `traceparent`, the header's value of what led to it, or None; it returns None where
    that trace isn't recorded, and the value is then passed on as it stands.
    """

    def match(self, event: Event) -> Span | None:
        """Begin to look for the subscriptions of an event that was read from a source topic."""

    def attempt(
        self, traceparent: str | None, event: Event, subscription: Subscription, delivery_id: str, number: int
    ) -> Span | None:
        """Begin an attempt, from 1."""

    def produce(
        self, traceparent: str | None, topic: str, event: Event, subscription_id: str, delivery_id: str
    ) -> Span | None:
        """Begin to put a delivery on one of the own topics."""


@dataclass(slots=True)
class OutgoingRecord:
    """A record to produce.

    Attributes:
        topic: Full topic name.
        key: The record's key, or None.
        value: The record's value, or None.
        headers: In order.
        spread: Whether it goes to partitions in turn, whatever its key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders
    spread: bool = False


class RecordProducer(Protocol):
    """Produces records durably."""

    def produce(self, record: OutgoingRecord) -> "asyncio.Future[None]":
        """Produce a record.

        Returns:
            A future that ends when all in-sync replicas have it. Retriable trouble is waited out, for as long
            as it takes. It fails with `RejectedRecordError` where this record can never be accepted and with
            `MisconfiguredError` where no record can.
        """


class RejectedRecordError(Exception):
    """Kafka will never accept this record (too large, invalid); others are not concerned."""


class DeliveryLogWriter(Protocol):
    """Writes the delivery log in bulk."""

    async def write(self, entries: Sequence[LogEntry]) -> int:
        """Write entries; when it returns they are durable (majority).

        An entry that MongoDB itself refuses is written once more without response body and error text, then
        given up.

        Returns:
            How many entries were given up.

        Raises:
            UnavailableError: MongoDB is out of reach; nothing is known of the entries, write them again.
        """

    async def states(self, delivery_ids: Sequence[str]) -> Mapping[str, LoggedState]:
        """Return what the log holds of these deliveries; unknown ones are missing from the answer.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; None filters nothing. Times are unix milliseconds."""

    status: str | None = None
    event_type: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing.

    Attributes:
        rows: Newest first.
        next_cursor: Opaque; pass it back for the next page. None on the last.
    """

    rows: Sequence[T]
    next_cursor: str | None


class DeliveryLogReader(Protocol):
    """Reads the delivery log, one workspace at a time."""

    async def page(
        self, workspace_id: str, subscription_id: str, wanted: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        """Return one page, newest first, attempts left out; stays right while rows are added.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: MongoDB is out of reach.
        """

    async def get(self, workspace_id: str, subscription_id: str, delivery_id: str) -> LoggedDelivery | None:
        """Return one delivery with its attempts, or None."""


@dataclass(frozen=True, slots=True)
class FailedCount(Generic[T]):
    """How many failed deliveries have a value in common."""

    value: T
    count: int


@dataclass(frozen=True, slots=True)
class FailedSummary:
    """Failed deliveries, counted by what they can be told apart by; the commonest values first, a bounded number.

    Attributes:
        total: All of them.
        complete: False where there are more, which were not counted.
        by_webhook: By their webhook's id.
        by_type: By event type.
        by_reason: By why they failed for good.
        by_response_code: By the last attempt's status code; 0: none came.
        by_hour_ms: By the hour of their creation, as its beginning in unix milliseconds, the latest first.
    """

    total: int
    complete: bool
    by_webhook: Sequence[FailedCount[str]]
    by_type: Sequence[FailedCount[str]]
    by_reason: Sequence[FailedCount[str]]
    by_response_code: Sequence[FailedCount[int]]
    by_hour_ms: Sequence[FailedCount[int]]


@dataclass(frozen=True, slots=True)
class Handled:
    """How many failed deliveries were marked.

    Attributes:
        count: So many.
        more: Whether some are left: one call marks a bounded number.
    """

    count: int
    more: bool


class FailedDeliveries(Protocol):
    """A workspace's failed deliveries, test events apart; every method may raise `UnavailableError`."""

    async def page(
        self, workspace_id: str, wanted: FailedFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        """Return one page of those that nobody handled, newest first, attempts left out.

        Raises:
            InvalidInputError: The cursor is none of ours.
        """

    async def summary(self, workspace_id: str, wanted: FailedFilter) -> FailedSummary:
        """Count those that nobody handled."""

    async def get(self, workspace_id: str, delivery_id: str) -> LoggedDelivery | None:
        """Return one with its attempts, handled or not; None where it isn't failed."""

    async def handle(self, workspace_id: str, wanted: FailedFilter, now_ms: int) -> Handled:
        """Mark them as handled, until they run again."""


@dataclass(frozen=True, slots=True)
class WaitingDelivery:
    """One delivery that isn't at its end.

    Attributes:
        attempts_made: How many attempts it had.
        waits_ms: How long it waits for the next one altogether; None where it isn't in a tier.
        due_ms: When that is due; None likewise.
    """

    attempts_made: int
    waits_ms: int | None
    due_ms: int | None


class DeliveryStatistics(Protocol):
    """Counts and measures deliveries of some subscriptions, of one workspace; what takes too long is given up.

    Every method raises `UnavailableError` where MongoDB is out of reach, and, with words for the caller, where there is
    too much to go through.
    """

    async def counts(
        self, subscription_ids: Sequence[str], since_ms: int, until_ms: int, bucket_ms: int
    ) -> Mapping[int, Mapping[str, int]]:
        """Return how many deliveries were created in each part of a time: its beginning to status to count."""

    async def durations(
        self, subscription_ids: Sequence[str], since_ms: int, until_ms: int, part: float, limit: int
    ) -> Sequence[float]:
        """Return how long attempts took of about one `part` of the deliveries that were created then, ms.

        Each delivery has the same chance, whosever it is and whatever became of it; the choice is the same each time.

        Args:
            subscription_ids: Whose deliveries.
            since_ms: Their beginning.
            until_ms: Their end, left out.
            part: Above 0; from 1 on, all of them.
            limit: Never more deliveries.
        """

    async def waiting(self, subscription_ids: Sequence[str], since_ms: int, limit: int) -> Sequence[WaitingDelivery]:
        """Return at most `limit` deliveries created since then that wait for an attempt."""


@dataclass(frozen=True, slots=True)
class WebhookFilter:
    """Which webhooks to list; None filters nothing.

    Attributes:
        text: Part of the name or the URL, whatever its case, or the whole id.
    """

    status: str | None = None
    text: str | None = None


class WebhookStore(Protocol):
    """Keeps the webhooks."""

    async def insert(self, webhook: Webhook, *, at_most: int | None = None) -> bool:
        """Store a new webhook; majority write.

        Returns:
            False where its workspace has `at_most` already: nothing is stored. However many are stored at once,
            there are never more.
        """

    async def get(self, workspace_id: str, webhook_id: str) -> Webhook | None:
        """Return a webhook of this workspace, or None."""

    async def some(self, workspace_id: str, webhook_ids: Sequence[str]) -> Sequence[Webhook]:
        """Return those of these webhooks that are this workspace's, in any order."""

    async def ids(self, workspace_id: str, limit: int) -> Sequence[str]:
        """Return the ids of at most `limit` of a workspace's webhooks, newest first."""

    async def page(
        self, workspace_id: str, cursor: str | None, limit: int, *, wanted: WebhookFilter | None = None
    ) -> Page[Webhook]:
        """Return one page of those that are wanted (None: of all), newest first."""

    async def replace(self, webhook: Webhook, *, expected_revision: int) -> bool:
        """Store a changed webhook, if its stored revision is still the expected one.

        Returns:
            False where it isn't, or where the webhook is gone.
        """

    async def delete(self, workspace_id: str, webhook_id: str, *, expected_revision: int | None = None) -> bool:
        """Delete a webhook; False where there is none, or where its revision is not the expected one."""


@dataclass(frozen=True, slots=True)
class SealedWebhook:
    """What of a stored webhook is sealed.

    Attributes:
        id: `wh_…`.
        workspace_id: Whose it is; part of what its values are bound to.
        revision: As it was read.
        values: Where each value stands, as the store names it, to its purpose and itself; None where the webhook can't
            be read.
    """

    id: str
    workspace_id: str
    revision: int
    values: Mapping[str, tuple[SealPurpose, bytes]] | None = field(repr=False)


class SealedStore(Protocol):
    """The sealed values of all workspaces. Every method may raise `UnavailableError`."""

    def batches(self) -> AsyncGenerator[Sequence[SealedWebhook], None]:
        """Go through all webhooks, by id; what is made meanwhile may be left out."""

    async def get(self, webhook_id: str) -> SealedWebhook | None:
        """Return one as it is now, or None where it is gone."""

    async def reseal(self, webhook: SealedWebhook, values: Mapping[str, bytes]) -> bool:
        """Put sealed values in their places, if the webhook's revision is still the one that was read; majority write.

        The revision counts up, so that a change that was begun before doesn't bring the former values back.

        Returns:
            False where it isn't, or where the webhook is gone.
        """


class SubscriptionLookup(Protocol):
    """Looks a subscription up where the index doesn't hold it."""

    async def find(self, subscription_id: str) -> Subscription | None:
        """Return it whatever its status (primary, majority), or None where it is deleted.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """

    async def disable(self, subscription: Subscription, reason: str, now_ms: int) -> bool:
        """Set status `disabled` with a reason, if URL and status are still those of `subscription`.

        Returns:
            Whether that was done.
        """


class WebhookReader(Protocol):
    """Reads one webhook with all that its owner sees."""

    async def get(self, workspace_id: str, webhook_id: str) -> Webhook | None:
        """Return a webhook of this workspace, or None.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """


class EndpointHealthStore(Protocol):
    """Keeps which webhooks fail, for all workers. Every method may raise `UnavailableError`."""

    async def note(self, notes: Sequence[HealthNote]) -> None:
        """Write down what a worker saw; safe to be repeated.

        A success ends what began to fail before it; failures of an older revision than the stored one count nothing,
        those of a newer one begin anew.
        """

    async def load(self) -> Sequence[FailingEndpoint]:
        """Return all that is known."""

    async def claim(self, endpoint: FailingEndpoint, taken_over_after_ms: int) -> bool:
        """Take it upon oneself to deal with an endpoint.

        Returns:
            False where another does (since less than `taken_over_after_ms`), or where it isn't as it was loaded but
            for its last failure.
        """

    async def announce_gone(self, endpoint: FailingEndpoint) -> None:
        """Note that a webhook is about to be disabled as its endpoint is gone: claimed, under `endpoint.key`."""

    async def set_warned(self, endpoint: FailingEndpoint) -> None:
        """Note that the first half of its time was told of; the claim ends."""

    async def forget(self, endpoint: FailingEndpoint) -> None:
        """Know nothing of it any more, unless it isn't as it was loaded but for its last failure."""

    async def delivered_since(self, endpoint: FailingEndpoint) -> bool:
        """Say whether the delivery log has a success since it fails that nobody noted."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret part. Times are unix milliseconds."""

    id: str
    workspace_id: str
    name: str | None
    scopes: frozenset[str]
    created_at_ms: int
    last_used_at_ms: int | None = None
    expires_at_ms: int | None = None


class ApiKeyStore(Protocol):
    """Keeps API keys as hashes."""

    async def insert(self, key: ApiKey, secret_hash: bytes, *, at_most: int | None = None) -> bool:
        """Store a new key.

        Returns:
            False where its workspace has `at_most` already: nothing is stored. However many are stored at once,
            there are never more.
        """

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """Return the key with this hash, or None."""

    async def list(self, workspace_id: str | None) -> Sequence[ApiKey]:
        """Return the keys of a workspace (None: of all), newest first."""

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ApiKey]:
        """Return one page of a workspace's keys, newest first."""

    async def delete(self, workspace_id: str | None, key_id: str) -> ApiKey | None:
        """Revoke a key (workspace None: of any) and return what it was; None where there is none."""

    async def touch(self, key_ids: Iterable[str], now_ms: int) -> None:
        """Note that keys were used."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something.

    Attributes:
        kind: `api_key`, `command_line` or `dispatcher`.
        id: The API key's id, else None.
        name: The API key's name, where it has one.
    """

    kind: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: who made it, of what, and when.

    Attributes:
        id: `aud_…`.
        at_ms: Unix milliseconds.
        action: `webhook.create` and the like.
        target_id: What was changed.
        changes: Field to (before, after) as JSON values; secrets never, only the names of their fields.
    """

    id: str
    workspace_id: str
    at_ms: int
    actor: Actor
    action: str
    target_id: str
    changes: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which changes to list; None filters nothing. Times are unix milliseconds."""

    action: str | None = None
    target_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class AuditStore(Protocol):
    """Keeps the changes."""

    async def insert(self, entry: AuditEntry) -> None:
        """Store an entry; majority write."""

    async def page(self, workspace_id: str, wanted: AuditFilter, cursor: str | None, limit: int) -> Page[AuditEntry]:
        """Return one page, newest first."""


@dataclass(frozen=True, slots=True)
class ClaimedRequest:
    """What is kept of a request that came with an idempotency key.

    Attributes:
        request_hash: SHA-256 of what was asked.
        answer: The sealed answer; None while there is none yet.
    """

    request_hash: bytes
    answer: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim to an idempotency key. Times are unix milliseconds.

    Attributes:
        id: What stands for workspace, call and key.
        request_hash: SHA-256 of what is asked.
        ticket: Tells this claim from every other.
        now_ms: When it is made.
        leased_until_ms: When another may take over where no answer came.
        expires_at_ms: When everything about the key is forgotten.
    """

    id: str
    request_hash: bytes
    ticket: str
    now_ms: int
    leased_until_ms: int
    expires_at_ms: int


class IdempotencyStore(Protocol):
    """Keeps requests that came with an idempotency key, and their answers."""

    async def claim(self, claim: Claim) -> ClaimedRequest | None:
        """Take an idempotency key, unless somebody has it.

        Returns:
            None where the key is this claim's now; else what stands there.
        """

    async def finish(self, claim: Claim, answer: bytes) -> None:
        """Store the sealed answer, if the key is still this claim's."""

    async def abandon(self, claim: Claim) -> None:
        """Give the key back, if it is still this claim's."""


class ConsumedRecord(Protocol):
    """A record as a consumer hands it on; the attributes are those of aiokafka's."""

    @property
    def topic(self) -> str:
        """Topic."""

    @property
    def partition(self) -> int:
        """Partition number."""

    @property
    def offset(self) -> int:
        """Offset."""

    @property
    def timestamp(self) -> int:
        """Unix milliseconds."""

    @property
    def key(self) -> bytes | None:
        """Key, or None."""

    @property
    def value(self) -> bytes | None:
        """Value, or None."""

    @property
    def headers(self) -> ReadHeaders:
        """Headers, in order."""


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that is on the topic and can't be read: too large to fetch, corrupt, or an unknown codec."""

    topic: str
    partition: int
    offset: int
    problem: str
    too_large: bool = False


Partition = tuple[str, int]
"""Topic and partition number."""

Coordinates = tuple[str, int, int]
"""Topic, partition number and offset."""


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """A committed position.

    Attributes:
        offset: The next offset to read.
        metadata: The committer's note beside it; empty where there is none.
    """

    offset: int
    metadata: str = ""


class AssignmentListener(Protocol):
    """Is told of rebalances by a consumer; the consumer polls nothing while it is being told."""

    async def assigned(self, epoch: int, positions: Mapping[Partition, CommitPoint]) -> None:
        """Take over partitions.

        Args:
            epoch: Counts up with each assignment; commits must name it.
            positions: For each partition the position it is read from, and the metadata committed there.
        """

    async def revoked(self, epoch: int) -> None:
        """Finish or hand over everything of this epoch; when it returns, the epoch is over."""


class RecordConsumer(Protocol):
    """One member of one consumer group."""

    async def start(self, listener: AssignmentListener) -> None:
        """Join the group."""

    async def poll(
        self, wanted: Sequence[Partition], *, timeout_ms: int, max_records: int
    ) -> Sequence[ConsumedRecord | UnreadableRecord]:
        """Return records of the wanted partitions, in offset order within each.

        Wanted partitions that are not (or no longer) assigned are left out; where none is left, it waits for
        the timeout while staying a live member of its group.

        Raises:
            UnavailableError: Kafka is out of reach; poll again.
            MisconfiguredError: Kafka refuses for good.
        """

    async def commit(self, epoch: int, points: Mapping[Partition, CommitPoint]) -> bool:
        """Commit positions, if `epoch` is still the present one.

        Returns:
            True where they stand; False where the assignment is over or Kafka is out of reach (bounded in
            time): the caller commits again later.
        """

    async def stop(self) -> None:
        """Let the listener finish, leave the group, close."""


class RecordLookup(Protocol):
    """Reads single records again, by their coordinates."""

    async def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        """Return a record, or None where it isn't there (any more) or can't be read.

        Raises:
            UnavailableError: Kafka is out of reach.
        """

    async def read_many(self, wanted: Iterable[Coordinates]) -> Mapping[Coordinates, ConsumedRecord]:
        """Return the records that are there, neighbours with one fetch; raises what `read` raises."""


class RecordPlacer(Protocol):
    """Produces one record for a caller who waits."""

    async def place(self, record: OutgoingRecord) -> None:
        """Return when all in-sync replicas have it.

        Raises:
            UnavailableError: Kafka is out of reach; the record may be on its topic or not.
        """


class ReplayStore(Protocol):
    """Keeps replay jobs, as far as their owners see them."""

    async def insert(self, job: ReplayJob, *, at_most: int | None = None) -> bool:
        """Store a new job.

        Returns:
            False where `at_most` of its workspace wait or run already: nothing is stored. However many are stored at
            once, there are never more.
        """

    async def get(self, workspace_id: str, replay_id: str) -> ReplayJob | None:
        """Return a job of this workspace, or None."""

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ReplayJob]:
        """Return one page, newest first."""

    async def cancel(self, workspace_id: str, replay_id: str, now_ms: int) -> ReplayJob | None:
        """Cancel a job that waits or runs and return it; None where there is none."""


class ReplayLeases(Protocol):
    """Hands replay jobs to whoever runs them: one runner at a time holds a job, for a time that it renews.

    Every method may raise `UnavailableError`.
    """

    async def take(self, owner: str, lease_ms: int) -> ReplayJob | None:
        """Take the job that was left alone for longest, of those that nobody holds or that `owner` holds already."""

    async def renew(self, replay_id: str, owner: str, lease_ms: int) -> bool:
        """Hold a job for longer; False where it isn't the owner's to run any more."""

    async def checkpoint(self, job: ReplayJob, owner: str, lease_ms: int) -> bool:
        """Store how far a job is, and hold it for longer; False as in `renew`: of a cancelled job counts are stored."""

    async def finish(self, job: ReplayJob, owner: str) -> bool:
        """Store how a job ended, with its status; returns what `checkpoint` returns."""

    async def release(self, owner: str) -> None:
        """Hold nothing any more."""


class ReplaySelection(Protocol):
    """Reads the deliveries that a replay job is about; test events are none of them."""

    async def count(self, job: ReplayJob) -> int:
        """Return how many there are."""

    async def next(self, job: ReplayJob, limit: int) -> Sequence[LoggedDelivery]:
        """Return those behind the job's cursor, oldest first, attempts left out."""

    async def in_hand(self, job: ReplayJob) -> Sequence[LoggedDelivery]:
        """Return those that the job has in hand, likewise."""


@dataclass(frozen=True, slots=True)
class SourceRecords:
    """Some records of a span, in the order of their offsets.

    Attributes:
        entries: Records, and what stands for those that can't be read.
        position: The next offset to read.
        gone: Offsets of the span that its topic has dropped, before the entries.
    """

    entries: Sequence[ConsumedRecord | UnreadableRecord]
    position: int
    gone: int = 0


class SourceReader(Protocol):
    """Reads source topics by time, outside their consumer group.

    Every method raises `UnavailableError` where Kafka is out of reach.
    """

    async def spans(self, since_ms: int, until_ms: int) -> Sequence[SourceSpan]:
        """Return what is on the source topics from one time to before another; empty spans are left out."""

    async def read_span(self, span: SourceSpan) -> SourceRecords:
        """Return the next records of a span, at least one offset further."""


class ChosenLetters(Protocol):
    """The dead letters of some spans that a filter wants, each delivery's newest.

    Attributes:
        count: How many there are.
    """

    count: int

    def read(self, spans: Sequence[SourceSpan]) -> AsyncGenerator[Sequence[DeadLetter], None]:
        """Yield those that lie in these spans, of one span after the other; may raise `UnavailableError`."""

    def is_handled(self, letter: DeadLetter) -> bool:
        """Say whether a letter was dealt with when it was last looked."""

    async def look_again(self) -> None:
        """Find out what was dealt with since; may raise `UnavailableError`."""


class LetterChooser(Protocol):
    """Chooses dead letters from their topic; every method may raise `UnavailableError`."""

    async def snapshot(self, since_ms: int | None = None, until_ms: int | None = None) -> Sequence[SourceSpan]:
        """Return what is on the topic now, partition by partition."""

    async def choose(
        self, spans: Sequence[SourceSpan], wanted: DeadLetterFilter, read: Callable[[int], None]
    ) -> ChosenLetters:
        """Find out which letters of these spans a filter wants; `read` is told how many offsets were looked at."""

    async def handle(self, letters: Sequence[DeadLetter], by: str, *, moved: bool = False) -> None:
        """Mark letters as dealt with.

        Args:
            letters: Which.
            by: By what.
            moved: Whether they went to another webhook: the delivery log then shows their own deliveries as handled.
        """


class ReplayTopicReader(Protocol):
    """Looks at the replay topic from outside its consumer group; raises `UnavailableError` where Kafka is away."""

    async def ends(self) -> Mapping[int, int]:
        """Return the end offset of each partition."""

    async def delivery_ids(self, replay_id: str, since: Mapping[int, int]) -> frozenset[str]:
        """Return the deliveries whose records carry a replay's id, from these offsets to the present ends."""


class DeadLetterReplayStore(Protocol):
    """Keeps the operators' replays of dead letters; every method may raise `UnavailableError`.

    One process at a time goes on with a replay: who takes it over stops the one before at its next batch.
    """

    async def insert(self, replay: LetterReplay, owner: str, now_ms: int) -> None:
        """Store a new replay; it is the owner's."""

    async def like(self, choice: ReplayChoice) -> Sequence[LetterReplay]:
        """Return the replays of the same likeness, the latest first."""

    async def take_over(self, replay_id: str, owner: str, now_ms: int) -> LetterReplay | None:
        """Make a replay that isn't done the owner's and return it; a done one is returned as it is. None: unknown."""

    async def store(self, replay: LetterReplay, owner: str, now_ms: int) -> bool:
        """Store how far a replay is; False where it isn't the owner's any more."""
