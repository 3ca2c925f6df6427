"""The metrics page: what a Prometheus server reads there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.core.exchange import SendFailure
from dispatcher.core.model import DeadLetterReason
from dispatcher.metrics import (
    DISABLED_REASONS,
    DURATION_BUCKETS,
    END_TO_END_BUCKETS,
    FAILURE_CAUSES,
    LATENESS_BUCKETS,
    REPLAY_RESULTS,
    Histogram,
    Metrics,
    cause_of,
    instruments,
    label_values,
    statistics_of,
)
from tests.fakes.http import answer, failure

TIERS = ("1m", "5m")
BOUNDED_LABELS = {
    "result": {"matched", "unmatched", "undecodable", "off_catalogue", "success", "failure", *REPLAY_RESULTS},
    "outcome": {"delivered", "retrying", "failed", "skipped"},
    "tier": set(TIERS),
    "reason": {*(reason.value for reason in DeadLetterReason), *DISABLED_REASONS},
    "role": {"source", "overflow"},
    "topic": {"events"},
    "partition": {"0", "1"},
    "le": {*map(str, DURATION_BUCKETS), *map(str, LATENESS_BUCKETS), *map(str, END_TO_END_BUCKETS), "+Inf"},
    "cause": set(FAILURE_CAUSES),
}


def families(metrics: Metrics) -> dict:
    return {family.name: family for family in text_string_to_metric_families(metrics.page().decode())}


def sample(metrics: Metrics, sample_name: str, **labels: str) -> float | None:
    found = [
        one.value
        for family in families(metrics).values()
        for one in family.samples
        if one.name == sample_name and one.labels == labels
    ]
    assert len(found) <= 1
    return found[0] if found else None


def used() -> Metrics:
    """Make metrics on which everything was counted at least once."""
    metrics = Metrics(TIERS)
    metrics.events.counts["matched"] += 3
    metrics.deliveries.counts["delivered"] += 2
    metrics.attempts_failed.counts["dns"] += 6
    metrics.retries.counts["5m"] += 1
    metrics.dead_letters.counts["gone"] += 1
    metrics.off_catalogue.counts["schema"] += 4
    metrics.outcomes.counts["skipped"] += 5
    metrics.webhooks_disabled.counts["failing"] += 1
    metrics.webhooks_warned.inc()
    metrics.operational_events.inc(2)
    metrics.attempt_seconds["success"].observe(0.02)
    metrics.end_to_end_seconds.observe(0.3)
    metrics.retry_lateness_seconds["1m"].observe(0.002)
    for counter in (metrics.spilled, metrics.parked, metrics.handed_over, metrics.closed):
        counter.inc()
    metrics.rebalances.labels("source").inc()
    metrics.commit_failures.labels("overflow").inc()
    metrics.set_lag({("events", 0): 12, ("events", 1): 0})
    metrics.gauge("in_flight_deliveries", lambda: 7)
    return metrics


def test_the_page_says_what_was_counted():
    """Every kind of instrument stands on the page under its name, with what was counted."""
    metrics = used()
    assert sample(metrics, "dispatcher_events_total", result="matched") == 3
    assert sample(metrics, "dispatcher_deliveries_total", outcome="delivered") == 2
    assert sample(metrics, "dispatcher_attempts_failed_total", cause="dns") == 6
    assert sample(metrics, "dispatcher_retries_scheduled_total", tier="5m") == 1
    assert sample(metrics, "dispatcher_dead_letters_total", reason="gone") == 1
    assert sample(metrics, "dispatcher_events_off_catalogue_total", reason="schema") == 4
    assert sample(metrics, "dispatcher_outcomes_produced_total", outcome="skipped") == 5
    assert sample(metrics, "dispatcher_webhooks_disabled_total", reason="failing") == 1
    assert sample(metrics, "dispatcher_webhooks_warned_total") == 1
    assert sample(metrics, "dispatcher_operational_events_total") == 2
    assert sample(metrics, "dispatcher_attempt_duration_seconds_count", result="success") == 1
    assert sample(metrics, "dispatcher_attempt_duration_seconds_sum", result="success") == 0.02
    assert sample(metrics, "dispatcher_end_to_end_latency_seconds_bucket", le="0.25") == 0
    assert sample(metrics, "dispatcher_end_to_end_latency_seconds_bucket", le="0.5") == 1
    assert sample(metrics, "dispatcher_retry_lateness_seconds_count", tier="1m") == 1
    assert sample(metrics, "dispatcher_overflow_spilled_total") == 1
    assert sample(metrics, "dispatcher_rebalances_total", role="source") == 1
    assert sample(metrics, "dispatcher_consumer_lag_records", topic="events", partition="0") == 12
    assert sample(metrics, "dispatcher_in_flight_deliveries") == 7


def test_every_instrument_is_named_and_explained():
    """Every metric has the prefix, a help text and a type, and counters are told from gauges."""
    for name, family in families(used()).items():
        assert name.startswith("dispatcher_")
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}


def test_no_label_is_without_bound():
    """Every label's values are those that the settings and the code allow; none is an id, a URL or an event type."""
    for family in families(used()).values():
        for one in family.samples:
            for label, value in one.labels.items():
                assert value in BOUNDED_LABELS[label]


@pytest.mark.parametrize("tally", ["events", "deliveries", "attempts_failed", "retries", "dead_letters"])
def test_a_value_nobody_announced_cannot_be_counted(tally):
    """Counting under an unknown label value raises instead of growing the page."""
    with pytest.raises(KeyError):
        getattr(used(), tally).counts["surprise"] += 1


def test_nothing_counted_is_zero_and_not_absent():
    """Before anything happens each label value stands there with 0, so that a rate has a start."""
    fresh = Metrics(TIERS)
    assert sample(fresh, "dispatcher_events_total", result="undecodable") == 0
    assert sample(fresh, "dispatcher_retries_scheduled_total", tier="1m") == 0
    assert all(sample(fresh, "dispatcher_dead_letters_total", reason=reason.value) == 0 for reason in DeadLetterReason)
    assert sample(fresh, "dispatcher_attempt_duration_seconds_count", result="failure") == 0
    assert all(sample(fresh, "dispatcher_attempts_failed_total", cause=cause) == 0 for cause in FAILURE_CAUSES)


def test_every_failure_has_a_cause_that_is_counted():
    """Whatever the sender says, and whatever status an endpoint answers but a 2xx, has a place in the counter."""
    counts = Metrics().attempts_failed.counts
    failures = [kind for kind in SendFailure if kind is not SendFailure.CIRCUIT_OPEN]
    assert [cause_of(failure(kind)) for kind in failures] == [kind.value for kind in failures]
    statuses = range(300, 1000)
    assert {cause_of(answer(status)) for status in statuses} == {"3xx", "4xx", "429", "5xx", "other_status"}
    assert {cause_of(failure(kind)) for kind in failures} | {cause_of(answer(each)) for each in statuses} == set(counts)
    told = {301: "3xx", 404: "4xx", 410: "4xx", 429: "429", 503: "5xx", 600: "other_status"}
    assert {status: cause_of(answer(status)) for status in told} == told


def test_what_took_its_whole_schedule_is_told_apart():
    """The time to a 2xx has buckets up to where a delivery's last retry is."""
    metrics = Metrics()
    metrics.end_to_end_seconds.observe(7 * 3600)
    assert sample(metrics, "dispatcher_end_to_end_latency_seconds_bucket", le="21600.0") == 0
    assert sample(metrics, "dispatcher_end_to_end_latency_seconds_bucket", le="28800.0") == 1


@given(st.lists(st.floats(-10, 100) | st.sampled_from(DURATION_BUCKETS), max_size=30))
def test_a_histogram_is_cumulative(observed):
    """Each bucket counts what is at most its bound, +Inf everything, and the sum never falls."""
    histogram = Histogram(DURATION_BUCKETS)
    before = 0.0
    for seconds in observed:
        histogram.observe(seconds)
        assert histogram.total >= before
        before = histogram.total
    rows = histogram.cumulative()
    assert rows == [
        *((str(bound), sum(seconds <= bound for seconds in observed)) for bound in DURATION_BUCKETS),
        ("+Inf", len(observed)),
    ]
    assert histogram.total == pytest.approx(sum(max(seconds, 0) for seconds in observed))


def test_lag_forgets_partitions_that_left():
    """A partition that is no longer assigned leaves the page instead of standing there with its last lag."""
    metrics = used()
    metrics.set_lag({("events", 1): 5})
    assert sample(metrics, "dispatcher_consumer_lag_records", topic="events", partition="0") is None
    assert sample(metrics, "dispatcher_consumer_lag_records", topic="events", partition="1") == 5


def test_a_gauge_is_read_at_each_scrape():
    """A gauge shows the value of now, and registering its name again replaces it."""
    metrics = Metrics()
    values = iter([1.0, 2.0])
    metrics.gauge("in_flight_deliveries", lambda: next(values))
    assert [sample(metrics, "dispatcher_in_flight_deliveries") for _ in range(2)] == [1.0, 2.0]
    metrics.gauge("in_flight_deliveries", lambda: 9)
    assert sample(metrics, "dispatcher_in_flight_deliveries") == 9


def test_two_workers_count_apart():
    """Each worker's metrics have a registry of their own."""
    one, other = used(), Metrics(TIERS)
    assert sample(one, "dispatcher_parked_total") == 1
    assert sample(other, "dispatcher_parked_total") == 0


def test_labelled_gauges_are_read_at_a_scrape():
    """A gauge with a label shows what its values are when somebody looks."""
    metrics, values = Metrics(), {"a": 1.0}
    metrics.labelled_gauge("lanes", lambda: values)
    assert b'dispatcher_lanes{state="a"} 1.0' in metrics.page()
    values["a"] = 2.0
    assert b'dispatcher_lanes{state="a"} 2.0' in metrics.page()


def test_statistics_are_values_that_occurred():
    """The least, the middle, the 99th of a hundred and the greatest are told; of nothing there are none."""
    assert statistics_of(range(101)) == {"min": 0, "median": 50, "p99": 99, "max": 100}
    assert statistics_of([]) == {}


def test_a_gauge_that_the_catalogue_does_not_have_is_refused():
    """A gauge of another name, or with a label where none is meant, raises instead of standing there unexplained."""
    with pytest.raises(KeyError):
        Metrics().gauge("surprise", lambda: 1)
    with pytest.raises(ValueError, match="state"):
        Metrics().gauge("lanes", lambda: 1)
    with pytest.raises(ValueError, match="no label"):
        Metrics().labelled_gauge("in_flight_deliveries", dict)


def test_the_catalogue_has_what_is_on_the_page():
    """Each metric of a page stands in the catalogue, with its type and labels, and no `_created` beside it."""
    catalogue = {each.name: each for each in instruments()}
    assert len(catalogue) == len(instruments())
    for name, family in families(used()).items():
        found = catalogue[f"{name}_total" if family.type == "counter" else name]
        assert (found.type, found.meaning) == (family.type, family.documentation) or "process" in name
        for one in family.samples:
            assert set(one.labels) - {"le"} == set(found.labels), one
    assert b"_created" not in used().page()


def test_names_tell_units_and_labels_are_explained():
    """Counters, and nothing else, end in `_total`; every label's values are told; none is what Prometheus reserves."""
    told = label_values()
    for each in instruments():
        assert each.name.endswith("_total") is (each.type == "counter")
        assert each.type != "histogram" or each.name.endswith("_seconds")
        assert set(each.labels) <= set(told) - {"le", "quantile", "job", "instance"}
    assert set(told) == {label for each in instruments() for label in each.labels} | {"le"}


def test_the_page_tells_when_its_process_started():
    """A restart can be told from the page: the process's start, its CPU time and its memory stand there."""
    page = Metrics().page().decode()
    for name in ("start_time_seconds", "cpu_seconds_total", "resident_memory_bytes", "open_fds"):
        assert float(page.partition(f"\ndispatcher_process_{name} ")[2].split()[0]) > 0
