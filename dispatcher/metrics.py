"""Every instrument, with its unit and labels.

What runs once a delivery is counted in plain attributes and turned into samples only when somebody scrapes: the
client library's own instruments take a lock a call. No label has more values than the settings allow.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.core.exchange import Response, SendFailure
from dispatcher.core.model import DeadLetterReason

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
END_TO_END_BUCKETS = (*DURATION_BUCKETS, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 28800.0)
"""Retries are in it: the last one of the usual schedule comes after almost eight hours."""
LATENESS_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0)
DELIVERY_OUTCOMES = ("delivered", "retrying", "failed", "skipped")
FINISHED_OUTCOMES = ("delivered", "failed", "skipped")
DISABLED_REASONS = ("failing", "gone")
REPLAY_RESULTS = ("produced", "gone", "skipped")
EVENT_RESULTS = ("matched", "unmatched", "undecodable", "off_catalogue")
FAILURE_CAUSES = (
    *(failure.value for failure in SendFailure if failure is not SendFailure.CIRCUIT_OPEN),
    *("3xx", "4xx", "429", "5xx", "other_status"),
)
OFF_CATALOGUE_REASONS = (DeadLetterReason.UNKNOWN_TYPE.value, DeadLetterReason.SCHEMA.value)

# A second family beside each counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_TALLIES = (
    ("events", "events", "result", "Events read from source topics"),
    ("events_off_catalogue", "off_catalogue", "reason", "Events of an unknown type, or with data its schema rejects"),
    ("attempts_failed", "attempts_failed", "cause", "Failed attempts by what came instead of a 2xx"),
    ("deliveries", "deliveries", "outcome", "Delivery steps by what became of the delivery"),
    ("retries_scheduled", "retries", "tier", "Deliveries sent to a delay topic"),
    ("dead_letters", "dead_letters", "reason", "Records produced to the dead-letter topic"),
    ("replayed", "replayed", "result", "Logged deliveries that replay jobs went through"),
    ("backfilled", "backfilled", "result", "Records of source topics that backfills went through"),
    ("outcomes_produced", "outcomes", "outcome", "Finished deliveries on the outcomes topic"),
    ("webhooks_disabled", "webhooks_disabled", "reason", "Webhooks that this worker has disabled"),
)
"""Name, attribute of `Metrics`, label and meaning of each tally; shown as `dispatcher_<name>_total`."""

_HISTOGRAMS = (
    ("attempt_duration", "attempt_seconds", "result", "An attempt, to its response headers"),
    ("end_to_end_latency", "end_to_end_seconds", "", "From an event's record time to its 2xx"),
    ("retry_lateness", "retry_lateness_seconds", "tier", "From due to taken up"),
)
"""Likewise; shown as `dispatcher_<name>_seconds`."""

_COUNTERS = {
    "overflow_spilled": ("", "Deliveries moved to the overflow topic by a full lane"),
    "parked": ("", "Deliveries parked in the first retry tier by a full lane"),
    "circuit_skipped": ("", "Steps that an open circuit breaker skipped"),
    "handed_over": ("", "Unfinished deliveries handed to overflow at a drain's end"),
    "closed_already_done": ("", "Deliveries closed as the log shows that they were done"),
    "log_entries_given_up": ("", "Log entries that MongoDB itself refused twice"),
    "log_write_failures": ("", "Batches that MongoDB did not take at once"),
    "webhooks_warned": ("", "Webhooks told of at half of the time that they may fail"),
    "operational_events": ("", "Operational events on the outcomes topic"),
    "rebalances": ("role", "Assignments taken over"),
    "commit_failures": ("role", "Commits that did not stand"),
}
"""Label and meaning by name; shown as `dispatcher_<name>_total`."""

_GAUGES = {
    "in_flight_deliveries": ("", "Requests under way"),
    "queued_deliveries": ("", "Deliveries that wait in their lane"),
    "held_deliveries": ("", "Deliveries of own topics that wait for their lane"),
    "slow_in_flight_deliveries": ("", "Requests under way to slow endpoints"),
    "lanes": ("state", "Lanes that work or are remembered"),
    "lane_limit_requests": ("statistic", "Requests that a lane may have under way, over all lanes"),
    "lane_latency_seconds": ("statistic", "Smoothed duration of a lane's attempts, over all lanes"),
    "held_event_bytes": ("", "Payload bytes still needed"),
    "unlogged_outcomes": ("", "Outcomes not in the delivery log yet"),
    "incomplete_records": ("", "Records being worked on"),
    "consumer_lag_seconds": (
        "role",
        "Age, by its own timestamp, of the first fetched, unfinished record of the partition furthest behind",
    ),
    "retry_overdue_seconds": ("tier", "For how long a tier's first unfinished delivery has been due"),
    "index_subscriptions": ("", "Subscriptions in memory"),
    "index_staleness_seconds": ("", "Age of the last proof that the index is current"),
    "index_broken_documents": ("", "Stored webhooks that can't be read"),
    "ready": ("check", "1 where /readyz has nothing against it, else 0"),
}
"""Likewise, read at each scrape; shown as `dispatcher_<name>`."""

LAG = ("dispatcher_consumer_lag_records", "Records between the committed and the end offset")
WORKER_UP = ("dispatcher_worker_up", "1 where the worker answered this scrape, else 0")
WORKER_RESTARTS = ("dispatcher_worker_restarts_total", "Times that the worker was started again after it died")
_TOO_MANY_REQUESTS = 429
_STATUS_CLASSES = {3: "3xx", 4: "4xx", 5: "5xx"}
STATISTICS = (("min", 0.0), ("median", 0.5), ("p99", 0.99), ("max", 1.0))


@dataclass(frozen=True, slots=True)
class Instrument:
    """What there is to know of one metric.

    Attributes:
        name: As it stands on the page.
        type: `counter`, `gauge` or `histogram`.
        labels: Names of its labels.
        meaning: What it counts, in a line.
    """

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


def instruments() -> Sequence[Instrument]:
    """Return every metric that a worker, or the page of several, may show, by name."""
    described = (
        *((f"{name}_total", "counter", label, text) for name, _, label, text in _TALLIES),
        *((f"{name}_total", "counter", label, text) for name, (label, text) in _COUNTERS.items()),
        *((f"{name}_seconds", "histogram", label, text) for name, _, label, text in _HISTOGRAMS),
        *((name, "gauge", label, text) for name, (label, text) in _GAUGES.items()),
    )
    prefix = "dispatcher_"
    found = [Instrument(prefix + name, kind, (label,) if label else (), text) for name, kind, label, text in described]
    found += [
        Instrument(LAG[0], "gauge", ("topic", "partition"), LAG[1]),
        Instrument(WORKER_UP[0], "gauge", ("worker",), WORKER_UP[1]),
        Instrument(WORKER_RESTARTS[0], "counter", ("worker",), WORKER_RESTARTS[1]),
        Instrument(f"{prefix}process_cpu_seconds_total", "counter", (), "CPU time of the process"),
        Instrument(f"{prefix}process_start_time_seconds", "gauge", (), "When the process started, unix time"),
        Instrument(f"{prefix}process_resident_memory_bytes", "gauge", (), "Memory of the process"),
        Instrument(f"{prefix}process_virtual_memory_bytes", "gauge", (), "Address space of the process"),
        Instrument(f"{prefix}process_open_fds", "gauge", (), "Open files and connections"),
        Instrument(f"{prefix}process_max_fds", "gauge", (), "How many may be open"),
    ]
    return sorted(found, key=lambda each: each.name)


def label_values() -> Mapping[str, str]:
    """Say of each label which values it may have; none has more than the settings allow."""
    reasons = dict.fromkeys((*(reason.value for reason in DeadLetterReason), *DISABLED_REASONS))
    return {
        "cause": f"{_listed(FAILURE_CAUSES)}; `4xx` is without 429",
        "check": "`index`, `groups`, `kafka`, `mongo`",
        "le": "the bounds of the histogram's buckets, in seconds",
        "outcome": _listed(DELIVERY_OUTCOMES),
        "partition": "numbers of the topic's partitions that this worker reads",
        "reason": _listed(reasons),
        "result": _listed((*EVENT_RESULTS, *REPLAY_RESULTS, "success", "failure")),
        "role": "`source`, `overflow`, `replay`, and `retry.<tier>`",
        "state": "`healthy`, `slow`, `circuit_open`",
        "statistic": _listed(name for name, _ in STATISTICS),
        "tier": "the retry tiers, former ones that still hold records included: `1m`, `5m`, …",
        "topic": "source topics and own topics that this worker reads",
        "worker": "the worker's number, from 1: only on the page of `dispatcher run`, where every sample has it",
    }


def cause_of(response: Response) -> str:
    """Return which of `FAILURE_CAUSES` a failed attempt is: the sender's word, or the class of its status."""
    if response.failure is not None:
        return response.failure.value
    if response.status == _TOO_MANY_REQUESTS:
        return "429"
    return _STATUS_CLASSES.get(response.status // 100, "other_status")


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


class Tally:
    """Counts by one label with a fixed set of values; adding one costs a dictionary step."""

    __slots__ = ("counts",)

    def __init__(self, values: Iterable[str]) -> None:
        self.counts = dict.fromkeys(values, 0)


class Histogram:
    """Observations in buckets, without a lock: written from the event loop only."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation; one below zero, as of two clocks that disagree, counts as zero."""
        if seconds < 0:
            seconds = 0.0
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the bucket bounds as text with their cumulative counts, `+Inf` last."""
        running = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self.counts, strict=True):
            running += count
            rows.append((bound, running))
        return rows


class Metrics:
    """The instruments of one worker.

    Args:
        tiers: Names of the retry tiers, former ones included.
    """

    def __init__(self, tiers: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.events = Tally(EVENT_RESULTS)
        self.off_catalogue = Tally(OFF_CATALOGUE_REASONS)
        self.attempts_failed = Tally(FAILURE_CAUSES)
        self.deliveries = Tally(DELIVERY_OUTCOMES)
        self.attempt_seconds = {result: Histogram(DURATION_BUCKETS) for result in ("success", "failure")}
        self.end_to_end_seconds = Histogram(END_TO_END_BUCKETS)
        self.retries = Tally(tiers)
        self.retry_lateness_seconds = {tier: Histogram(LATENESS_BUCKETS) for tier in self.retries.counts}
        self.dead_letters = Tally(reason.value for reason in DeadLetterReason)
        self.replayed = Tally(REPLAY_RESULTS)
        self.backfilled = Tally(REPLAY_RESULTS)
        self.outcomes = Tally(FINISHED_OUTCOMES)
        self.webhooks_disabled = Tally(DISABLED_REASONS)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.labelled_gauges: dict[str, tuple[str, str, Callable[[], Mapping[str, float]]]] = {}
        self.registry.register(_HotCollector(self))
        ProcessCollector(namespace="dispatcher", registry=self.registry)
        self.spilled = self._counter("overflow_spilled")
        self.parked = self._counter("parked")
        self.circuit_skipped = self._counter("circuit_skipped")
        self.handed_over = self._counter("handed_over")
        self.closed = self._counter("closed_already_done")
        self.log_given_up = self._counter("log_entries_given_up")
        self.log_write_failures = self._counter("log_write_failures")
        self.webhooks_warned = self._counter("webhooks_warned")
        self.operational_events = self._counter("operational_events")
        self.rebalances = self._counter("rebalances")
        self.commit_failures = self._counter("commit_failures")
        self.lag = Gauge(*LAG, ["topic", "partition"], registry=self.registry)

    def _counter(self, name: str) -> Counter:
        label, text = _COUNTERS[name]
        return Counter(f"dispatcher_{name}_total", text, [label] if label else [], registry=self.registry)

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Show a value that is read at each scrape, as `dispatcher_<name>`; the table of gauges must have it."""
        label, text = _GAUGES[name]
        if label:
            raise ValueError(f"{name} has the label {label}")
        self.gauges[name] = (text, read)

    def labelled_gauge(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Show values by one label, read at each scrape, as `dispatcher_<name>`; the table must have it."""
        label, text = _GAUGES[name]
        if not label:
            raise ValueError(f"{name} has no label")
        self.labelled_gauges[name] = (text, label, read)

    def show_readiness(self, checks: Callable[[], Mapping[str, str | None]]) -> None:
        """Show what `/readyz` looks at: by name, why it isn't ready, or None."""
        self.labelled_gauge("ready", lambda: {name: float(reason is None) for name, reason in checks().items()})

    def set_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """Take over the lag of every partition; partitions that are not named are forgotten."""
        self.lag.clear()
        for (topic, partition), records in lag.items():
            self.lag.labels(topic, str(partition)).set(records)

    def page(self) -> bytes:
        """Return the metrics page in Prometheus's text format."""
        return generate_latest(self.registry)


def statistics_of(values: Iterable[float]) -> Mapping[str, float]:
    """Return the least, the median, the 99th percentile and the greatest of some values, by name; empty of none."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {name: float(ordered[round(last * part)]) for name, part in STATISTICS}


class _HotCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Yield what is counted in plain attributes."""
        metrics = self._metrics
        for name, attribute, label, text in _TALLIES:
            yield _tally(name, text, label, getattr(metrics, attribute))
        for name, attribute, label, text in _HISTOGRAMS:
            yield _histograms(name, text, label, getattr(metrics, attribute))
        for name, (text, read) in metrics.gauges.items():
            yield GaugeMetricFamily(f"dispatcher_{name}", text, value=read())
        for name, (text, label, values) in metrics.labelled_gauges.items():
            family = GaugeMetricFamily(f"dispatcher_{name}", text, labels=[label])
            for value, number in values().items():
                family.add_metric([value], number)
            yield family


def _tally(name: str, text: str, label: str, tally: Tally) -> Metric:
    family = CounterMetricFamily(f"dispatcher_{name}", text, labels=[label])
    for value, count in tally.counts.items():
        family.add_metric([value], count)
    return family


def _histograms(name: str, text: str, label: str, histograms: Mapping[str, Histogram] | Histogram) -> Metric:
    labels = [label] if label else []
    family = HistogramMetricFamily(f"dispatcher_{name}_seconds", text, labels=labels)
    if isinstance(histograms, Histogram):
        family.add_metric([], histograms.cumulative(), histograms.total)
        return family
    for value, histogram in histograms.items():
        family.add_metric([value], histogram.cumulative(), histogram.total)
    return family
