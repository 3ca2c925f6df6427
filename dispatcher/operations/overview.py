"""How a workspace's deliveries fare: rate, success, latency and backlog over a time, from the delivery log."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import RetryTier
from dispatcher.core.retry import waited_in
from dispatcher.operations.gates import Gate, make_gate_of_reads
from dispatcher.ports import Clock, DeliveryStatistics, WaitingDelivery, WebhookStore

MAX_WEBHOOKS = 1000
"""Of as many webhooks, the newest, deliveries count."""
MAX_MEASURED = 4000
"""From about as many deliveries latencies are taken, evenly over the time."""
MAX_WAITING = 5000
FRESH_SECONDS = 4.0
"""For so long an overview is shown again as it is, whoever asks."""

_PAGE = 200
_MAX_KEPT = 256
_LONGEST_WAIT_MS = 10 * 86_400_000
_FEWEST_A_BUCKET = 20
_QUERIES_AT_ONCE = 2
"""Of one overview, so that another's don't stand behind all of them."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time that ends now, and the parts that it is cut into, ms."""

    length_ms: int
    bucket_ms: int


_MINUTE = 60_000
WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "1h": Window(60 * _MINUTE, _MINUTE),
        "6h": Window(360 * _MINUTE, 5 * _MINUTE),
        "24h": Window(1440 * _MINUTE, 30 * _MINUTE),
        "7d": Window(7 * 1440 * _MINUTE, 180 * _MINUTE),
    }
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of how long attempts took, ms."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """What became of the deliveries that were created in one part of the time.

    Attributes:
        at_ms: Its beginning.
        under_way: Those that are pending or retrying still.
        latency: None where no attempt was made.
    """

    at_ms: int
    delivered: int
    failed: int
    skipped: int
    under_way: int
    latency: Latency | None

    @property
    def total(self) -> int:
        """All of them."""
        return self.delivered + self.failed + self.skipped + self.under_way


@dataclass(frozen=True, slots=True)
class TierBacklog:
    """What waits in one tier; `next_due_ms` is when the first of it is due."""

    tier: str
    waiting: int
    next_due_ms: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """How deliveries fare.

    Attributes:
        window: One of `WINDOWS`.
        bucket_ms: How long each bucket is.
        buckets: Oldest first, none left out.
        latency: Over the whole time.
        backlog: By tier, shortest first.
        at_once: Deliveries that wait for their turn, in no tier.
        backlog_cut: More wait than were counted.
        webhooks: How many webhooks there are.
        webhooks_cut: There are more, and theirs don't count.
    """

    window: str
    bucket_ms: int
    buckets: Sequence[Bucket]
    latency: Latency | None
    backlog: Sequence[TierBacklog]
    at_once: int
    backlog_cut: bool
    webhooks: int
    webhooks_cut: bool

    @property
    def delivered(self) -> int:
        """How many were delivered."""
        return sum(bucket.delivered for bucket in self.buckets)

    @property
    def failed(self) -> int:
        """How many failed for good."""
        return sum(bucket.failed for bucket in self.buckets)

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(bucket.total for bucket in self.buckets)

    @property
    def success(self) -> float | None:
        """Which part of those that reached an end was delivered; None where none did."""
        ended = self.delivered + self.failed
        return self.delivered / ended if ended else None


class Overviews:
    """The overviews of all workspaces; each call sees one workspace and nothing else.

    Args:
        webhooks: Whose deliveries count.
        statistics: The delivery log.
        clock: Time.
        tiers: The schedule.
        reads: Bounds how much that goes through many deliveries is under way; None: a gate of its own.
    """

    def __init__(
        self,
        webhooks: WebhookStore,
        statistics: DeliveryStatistics,
        clock: Clock,
        tiers: Sequence[RetryTier],
        *,
        reads: Gate | None = None,
    ) -> None:
        self._reads = reads or make_gate_of_reads()
        self._webhooks = webhooks
        self._statistics = statistics
        self._clock = clock
        self._tiers = tiers
        self._kept: dict[tuple[str, str], tuple[float, Overview]] = {}

    async def of(self, workspace_id: str, window: str) -> Overview:
        """Return an overview that is `FRESH_SECONDS` old at most.

        Args:
            workspace_id: The tenant.
            window: One of `WINDOWS`.

        Raises:
            TooManyRequestsError: Too much is counted for this workspace already.
            UnavailableError: The store is out of reach, or there is too much to go through.
        """
        kept = self._fresh(workspace_id, window)
        if kept is not None:
            return kept
        async with self._reads.enter(workspace_id):
            # Somebody else of the workspace may have had it made while this one waited.
            kept, now = self._fresh(workspace_id, window), self._clock.monotonic()
            if kept is not None:
                return kept
            made = await self._made(workspace_id, window)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[workspace_id, window] = (now, made)
        return made

    def _fresh(self, workspace_id: str, window: str) -> Overview | None:
        at, overview = self._kept.get((workspace_id, window), (0.0, None))
        return overview if self._clock.monotonic() - at < FRESH_SECONDS else None

    async def _made(self, workspace_id: str, name: str) -> Overview:
        window, now_ms = WINDOWS[name], self._clock.now_ms()
        # Parts begin at round times, so that bars don't change as they move.
        until_ms = (now_ms // window.bucket_ms + 1) * window.bucket_ms
        since_ms = until_ms - window.length_ms
        ids, cut = await self._ids(workspace_id)
        counts, waiting = await asyncio.gather(
            self._statistics.counts(ids, since_ms, until_ms, window.bucket_ms),
            self._statistics.waiting(ids, now_ms - _LONGEST_WAIT_MS, MAX_WAITING),
        )
        starts = range(since_ms, until_ms, window.bucket_ms)
        measured = [at_ms for at_ms in starts if counts.get(at_ms)]
        each = max(_FEWEST_A_BUCKET, MAX_MEASURED // max(1, len(measured)))
        few = asyncio.Semaphore(_QUERIES_AT_ONCE)

        async def durations_of(at_ms: int) -> Sequence[float]:
            async with few:
                return await self._statistics.durations(ids, at_ms, at_ms + window.bucket_ms, each)

        durations = await asyncio.gather(*map(durations_of, measured))
        by_start = dict(zip(measured, durations, strict=True))
        backlog, at_once = self._backlog(waiting)
        return Overview(
            window=name,
            bucket_ms=window.bucket_ms,
            buckets=[_bucket(at_ms, counts.get(at_ms, {}), by_start.get(at_ms, ())) for at_ms in starts],
            latency=_latency([duration for part in durations for duration in part]),
            backlog=backlog,
            at_once=at_once,
            backlog_cut=len(waiting) >= MAX_WAITING,
            webhooks=len(ids),
            webhooks_cut=cut,
        )

    async def _ids(self, workspace_id: str) -> tuple[list[str], bool]:
        ids: list[str] = []
        cursor: str | None = None
        while len(ids) < MAX_WEBHOOKS:
            page = await self._webhooks.page(workspace_id, cursor, _PAGE)
            ids += [webhook.subscription.id for webhook in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                return ids, False
        return ids, True

    def _backlog(self, waiting: Sequence[WaitingDelivery]) -> tuple[list[TierBacklog], int]:
        due: dict[str, list[int]] = {tier.name: [] for tier in self._tiers}
        at_once = 0
        for each in waiting:
            if each.waits_ms is None or each.due_ms is None or not self._tiers:
                at_once += 1
            else:
                due[waited_in(each.waits_ms, each.attempts_made, self._tiers).name].append(each.due_ms)
        return [TierBacklog(tier, len(times), min(times, default=None)) for tier, times in due.items()], at_once


def _bucket(at_ms: int, counts: Mapping[str, int], durations: Sequence[float]) -> Bucket:
    return Bucket(
        at_ms,
        delivered=counts.get(DeliveryStatus.DELIVERED, 0),
        failed=counts.get(DeliveryStatus.FAILED, 0),
        skipped=counts.get(DeliveryStatus.SKIPPED, 0),
        under_way=counts.get(DeliveryStatus.PENDING, 0) + counts.get(DeliveryStatus.RETRYING, 0),
        latency=_latency(durations),
    )


def _latency(durations: Sequence[float]) -> Latency | None:
    """Return percentiles by nearest rank; None of nothing."""
    if not durations:
        return None
    ordered = sorted(durations)
    last = len(ordered) - 1
    return Latency(*(ordered[min(last, int(len(ordered) * part))] for part in (0.5, 0.95, 0.99)))
