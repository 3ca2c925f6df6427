"""How a workspace's deliveries fare: rate, success, latency and backlog over a time, from the delivery log."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import RetryTier
from dispatcher.core.retry import waited_in
from dispatcher.operations.latency import Latency, Sample, latency_of
from dispatcher.ports import Clock, DeliveryStatistics, WaitingDelivery, WebhookStore

MAX_WEBHOOKS = 1000
"""Of as many webhooks, the newest, deliveries count."""
MAX_MEASURED = 4000
"""From about as many deliveries latencies are taken, evenly over the time and over webhooks."""
MAX_WAITING = 5000
FRESH_SECONDS = 4.0
"""For so long an overview is shown again as it is, whoever asks."""
TROUBLED_SECONDS = 30.0
"""For so long it is where a part of it took too long: trying again soon would take as long."""
MAX_PART_SECONDS = 10.0
"""What takes longer is left out."""
MAX_MEASURED_AT_ONCE = 4
"""One overview measures as many of its buckets at a time, so that others' queries come between."""

_MAX_KEPT = 256
_LONGEST_WAIT_MS = 10 * 86_400_000
_FEWEST_A_BUCKET = 20
# Deliveries are chosen by chance: rarely more than this many times as many as are wanted.
_MARGIN = 4

T = TypeVar("T")


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
        counts_trouble: Why nothing is counted, and what to do; empty where it is.
        latency_trouble: Likewise for latencies.
        backlog_trouble: Likewise for what waits.
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
    counts_trouble: str = ""
    latency_trouble: str = ""
    backlog_trouble: str = ""

    @property
    def troubled(self) -> bool:
        """Whether a part of it is missing."""
        return bool(self.counts_trouble or self.latency_trouble or self.backlog_trouble)

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
    """

    def __init__(
        self, webhooks: WebhookStore, statistics: DeliveryStatistics, clock: Clock, tiers: Sequence[RetryTier]
    ) -> None:
        self._webhooks = webhooks
        self._statistics = statistics
        self._clock = clock
        self._tiers = tiers
        self._kept: dict[tuple[str, str], tuple[float, Overview]] = {}
        self._under_way: dict[tuple[str, str], asyncio.Task[Overview]] = {}

    async def of(self, workspace_id: str, window: str) -> Overview:
        """Return an overview that is `FRESH_SECONDS` old at most, or `TROUBLED_SECONDS` where a part is missing.

        Whoever asks while one is made waits for that one; it is made to its end even if nobody waits any more.

        Args:
            workspace_id: The tenant.
            window: One of `WINDOWS`.

        Raises:
            UnavailableError: The store is out of reach.
        """
        key = workspace_id, window
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() < kept[0]:
            return kept[1]
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._made(workspace_id, window))
            task.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(task)

    def _keep(self, key: tuple[str, str], done: asyncio.Task[Overview]) -> None:
        del self._under_way[key]
        # Asking for the error also tells asyncio that somebody has seen it, were all who waited gone.
        if done.cancelled() or done.exception() is not None:
            return
        made = done.result()
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        seconds = TROUBLED_SECONDS if made.troubled else FRESH_SECONDS
        self._kept[key] = (self._clock.monotonic() + seconds, made)

    async def _made(self, workspace_id: str, name: str) -> Overview:
        window, now_ms = WINDOWS[name], self._clock.now_ms()
        # Parts begin at round times, so that bars don't change as they move.
        until_ms = (now_ms // window.bucket_ms + 1) * window.bucket_ms
        since_ms = until_ms - window.length_ms
        ids = await self._webhooks.ids(workspace_id, MAX_WEBHOOKS + 1)
        ids, cut = ids[:MAX_WEBHOOKS], len(ids) > MAX_WEBHOOKS
        async with _together() as group:
            counting = group.create_task(_part(self._statistics.counts(ids, since_ms, until_ms, window.bucket_ms), {}))
            waits = group.create_task(_part(self._statistics.waiting(ids, now_ms - _LONGEST_WAIT_MS, MAX_WAITING), ()))
        (counts, counts_trouble), (waiting, backlog_trouble) = counting.result(), waits.result()
        measured, latency_trouble = await _part(self._measured(ids, counts, window.bucket_ms), {})
        backlog, at_once = self._backlog(waiting)
        return Overview(
            window=name,
            bucket_ms=window.bucket_ms,
            buckets=[
                _bucket(at_ms, counts.get(at_ms, {}), measured.get(at_ms))
                for at_ms in range(since_ms, until_ms, window.bucket_ms)
            ],
            latency=latency_of(measured.values()),
            backlog=backlog,
            at_once=at_once,
            backlog_cut=len(waiting) >= MAX_WAITING,
            webhooks=len(ids),
            webhooks_cut=cut,
            counts_trouble=counts_trouble and _too_many("count", name),
            latency_trouble=(counts_trouble or latency_trouble) and _too_many("measure", name),
            backlog_trouble=backlog_trouble and _BACKLOG_UNKNOWN,
        )

    async def _measured(
        self, ids: Sequence[str], counts: Mapping[int, Mapping[str, int]], bucket_ms: int
    ) -> Mapping[int, Sample]:
        """Measure about as many deliveries in each bucket that has any; of all of them where there are few."""
        totals = {at_ms: sum(found.values()) for at_ms, found in counts.items() if found}
        each = max(_FEWEST_A_BUCKET, MAX_MEASURED // max(1, len(totals)))
        turns = asyncio.Semaphore(MAX_MEASURED_AT_ONCE)

        async def measure(at_ms: int, total: int) -> Sequence[float]:
            async with turns:
                return await self._statistics.durations(ids, at_ms, at_ms + bucket_ms, each / total, _MARGIN * each)

        async with _together() as group:
            tasks = {at_ms: group.create_task(measure(at_ms, total)) for at_ms, total in totals.items()}
        return {at_ms: Sample(task.result(), max(1.0, totals[at_ms] / each)) for at_ms, task in tasks.items()}

    def _backlog(self, waiting: Sequence[WaitingDelivery]) -> tuple[list[TierBacklog], int]:
        due: dict[str, list[int]] = {tier.name: [] for tier in self._tiers}
        at_once = 0
        for each in waiting:
            if each.waits_ms is None or each.due_ms is None or not self._tiers:
                at_once += 1
            else:
                due[waited_in(each.waits_ms, each.attempts_made, self._tiers).name].append(each.due_ms)
        return [TierBacklog(tier, len(times), min(times, default=None)) for tier, times in due.items()], at_once


_BACKLOG_UNKNOWN = (
    "What waits could not be counted in time. Look again later; the dispatcher's metrics have the lag of each tier."
)


def _too_many(done: str, window: str) -> str:
    """Say that there is too much in a window, and what to do."""
    what = f"There are too many deliveries to {done} over {window} in time. "
    if window == next(iter(WINDOWS)):
        return f"{what}The dispatcher's metrics have rates and latencies."
    return f"{what}Choose a shorter time."


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks side by side; the first one that fails ends the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as error:
        raise error.exceptions[0] from error.exceptions[0].__cause__


async def _part(made: Coroutine[None, None, T], none: T) -> tuple[T, str]:
    """Return one part of an overview; where it takes too long, `none` and a word on that.

    Raises:
        UnavailableError: The store is out of reach.
    """
    try:
        async with asyncio.timeout(MAX_PART_SECONDS):
            return await made, ""
    except TimeoutError:
        return none, "it took too long"
    except UnavailableError as error:
        if not error.shown:
            raise
        return none, error.shown


def _bucket(at_ms: int, counts: Mapping[str, int], sample: Sample | None) -> Bucket:
    return Bucket(
        at_ms,
        delivered=counts.get(DeliveryStatus.DELIVERED, 0),
        failed=counts.get(DeliveryStatus.FAILED, 0),
        skipped=counts.get(DeliveryStatus.SKIPPED, 0),
        under_way=counts.get(DeliveryStatus.PENDING, 0) + counts.get(DeliveryStatus.RETRYING, 0),
        latency=None if sample is None else latency_of([sample]),
    )
