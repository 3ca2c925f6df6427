"""Every instrument, with its unit and labels.

What runs once a delivery is counted in plain attributes and turned into samples only when somebody scrapes: the
client library's own instruments take a lock a call. No label has more values than the settings allow.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.core.model import DeadLetterReason

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LATENESS_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0)
DELIVERY_OUTCOMES = ("delivered", "retrying", "failed", "skipped")
FINISHED_OUTCOMES = ("delivered", "failed", "skipped")
DISABLED_REASONS = ("failing", "gone")
REPLAY_RESULTS = ("produced", "gone", "skipped")
EVENT_RESULTS = ("matched", "unmatched", "undecodable", "off_catalogue")
OFF_CATALOGUE_REASONS = (DeadLetterReason.UNKNOWN_TYPE.value, DeadLetterReason.SCHEMA.value)


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
        self.deliveries = Tally(DELIVERY_OUTCOMES)
        self.attempt_seconds = {result: Histogram(DURATION_BUCKETS) for result in ("success", "failure")}
        self.end_to_end_seconds = Histogram(DURATION_BUCKETS)
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
        self.spilled = self._counter("overflow_spilled", "Deliveries moved to the overflow topic by a full lane")
        self.parked = self._counter("parked", "Deliveries parked in the first retry tier by a full lane")
        self.circuit_skipped = self._counter("circuit_skipped", "Steps that an open circuit breaker skipped")
        self.handed_over = self._counter("handed_over", "Unfinished deliveries handed to overflow at a drain's end")
        self.closed = self._counter("closed_already_done", "Deliveries closed as the log shows that they were done")
        self.log_given_up = self._counter("log_entries_given_up", "Log entries that MongoDB itself refused twice")
        self.log_write_failures = self._counter("log_write_failures", "Batches that MongoDB did not take at once")
        self.webhooks_warned = self._counter(
            "webhooks_warned", "Webhooks told of at half of the time that they may fail"
        )
        self.operational_events = self._counter("operational_events", "Operational events on the outcomes topic")
        self.rebalances = self._counter("rebalances", "Assignments taken over", ["role"])
        self.commit_failures = self._counter("commit_failures", "Commits that did not stand", ["role"])
        self.lag = Gauge(
            "dispatcher_consumer_lag_records",
            "Records between the committed and the end offset",
            ["topic", "partition"],
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(f"dispatcher_{name}_total", text, list(labels), registry=self.registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read at each scrape, as `dispatcher_<name>`."""
        self.gauges[name] = (text, read)

    def labelled_gauge(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Show values by one label, read at each scrape, as `dispatcher_<name>`."""
        self.labelled_gauges[name] = (text, label, read)

    def set_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """Take over the lag of every partition; partitions that are not named are forgotten."""
        self.lag.clear()
        for (topic, partition), records in lag.items():
            self.lag.labels(topic, str(partition)).set(records)

    def page(self) -> bytes:
        """Return the metrics page in Prometheus's text format."""
        return generate_latest(self.registry)


def quantiles(values: Iterable[float]) -> Mapping[str, float]:
    """Return the least, the median, the 99th percentile and the greatest of some values, by name; empty of none."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {str(part): float(ordered[round(last * part)]) for part in (0, 0.5, 0.99, 1)}


class _HotCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Yield what is counted in plain attributes."""
        metrics = self._metrics
        yield _tally("events", "Events read from source topics", "result", metrics.events)
        yield _tally(
            "events_off_catalogue",
            "Events of an unknown type, or with data that its schema rejects",
            "reason",
            metrics.off_catalogue,
        )
        yield _tally("deliveries", "Delivery steps by what became of the delivery", "outcome", metrics.deliveries)
        yield _tally("retries_scheduled", "Deliveries sent to a delay topic", "tier", metrics.retries)
        yield _tally("dead_letters", "Records produced to the dead-letter topic", "reason", metrics.dead_letters)
        yield _tally("replayed", "Logged deliveries that replay jobs went through", "result", metrics.replayed)
        yield _tally("backfilled", "Records of source topics that backfills went through", "result", metrics.backfilled)
        yield _tally("outcomes_produced", "Finished deliveries on the outcomes topic", "outcome", metrics.outcomes)
        yield _tally("webhooks_disabled", "Webhooks that this worker has disabled", "reason", metrics.webhooks_disabled)
        yield _histograms("attempt_duration", "An attempt, to its response headers", "result", metrics.attempt_seconds)
        yield _histograms(
            "end_to_end_latency", "From an event's record time to its 2xx", "", metrics.end_to_end_seconds
        )
        yield _histograms("retry_lateness", "From due to taken up", "tier", metrics.retry_lateness_seconds)
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
