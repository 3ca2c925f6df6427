"""Merging the workers' metrics pages."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.app.merging import PageMerger, WorkerPage, parse_page


class Worker:
    """A worker's instruments."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.sent = Counter("sent", 'Requests that "were" sent.\nAll.', ["status"], registry=self.registry)
        self.busy = Gauge("busy", "Under way.", registry=self.registry)
        self.took = Histogram("took_seconds", "Duration.", buckets=(1, 5), registry=self.registry)

    def page(self, number=1, incarnation=1):
        """Return its page as it is now."""
        return WorkerPage(number, incarnation, generate_latest(self.registry).decode())


def samples(text):
    """Read a page back with Prometheus's own parser, which also refuses what is malformed."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a sample stands twice"
            found[key] = sample.value
    return found


def value(text, name, **labels):
    return samples(text).get((name, tuple(sorted(labels.items()))))


def test_each_sample_gets_the_workers_number_and_help_stands_once():
    """Two workers' pages become one valid page."""
    first, second = Worker(), Worker()
    first.sent.labels("200").inc(3)
    second.sent.labels("200").inc(4)
    second.busy.set(7)
    text = PageMerger().merge([first.page(1), second.page(2)])
    assert value(text, "sent_total", status="200", worker="1") == 3
    assert value(text, "sent_total", status="200", worker="2") == 4
    assert value(text, "busy", worker="2") == 7
    assert value(text, "took_seconds_bucket", le="+Inf", worker="1") == 0
    assert text.count("# TYPE sent_total counter") == 1
    assert text.count("# HELP busy Under way.") == 1


@pytest.mark.parametrize("odd", ["a b", 'q"uo}te', "back\\slash", "new\nline", "{}", "ünïcode"])
def test_odd_label_values_pass_through(odd):
    """Spaces, quotes and braces in a label's value don't confuse the merging."""
    worker = Worker()
    worker.sent.labels(odd).inc(2)
    assert value(PageMerger().merge([worker.page()]), "sent_total", status=odd, worker="1") == 2


def test_a_replacement_goes_on_counting_where_the_dead_one_was_last_seen():
    """Counters and histograms never go back over deaths; gauges start anew."""
    merger, old = PageMerger(), Worker()
    old.sent.labels("200").inc(10)
    old.sent.labels("500").inc(1)
    old.took.observe(2)
    old.busy.set(9)
    merger.merge([old.page()])
    new = Worker()
    new.sent.labels("200").inc(5)
    new.took.observe(0.5)
    text = merger.merge([new.page(incarnation=2)])
    assert value(text, "sent_total", status="200", worker="1") == 15
    assert value(text, "sent_total", status="500", worker="1") == 1
    assert value(text, "took_seconds_count", worker="1") == 2
    assert value(text, "took_seconds_sum", worker="1") == 2.5
    assert value(text, "took_seconds_bucket", le="1.0", worker="1") == 1
    assert value(text, "busy", worker="1") == 0


def test_counters_never_go_back_over_many_deaths_and_missed_scrapes():
    """Whatever happens between scrapes, a counter's line only rises."""
    merger, seen = PageMerger(), []
    for incarnation in range(1, 6):
        worker = Worker()
        for _ in range(3):
            worker.sent.labels("200").inc()
            pages = ([worker.page(incarnation=incarnation)], [WorkerPage(1, incarnation, None)])
            seen += [value(merger.merge(page), "sent_total", status="200", worker="1") for page in pages]
        unseen = [WorkerPage(1, incarnation + 1, None)]
        seen.append(value(merger.merge(unseen), "sent_total", status="200", worker="1"))
    assert seen == sorted(seen)
    assert seen[-1] == 15


def test_a_worker_that_gives_no_page_keeps_its_counters_and_loses_its_gauges():
    """A dead worker's gauges would lie; its counts still happened."""
    merger, worker = PageMerger(), Worker()
    worker.sent.labels("200").inc(2)
    worker.busy.set(4)
    merger.merge([worker.page()])
    for _ in range(2):
        text = merger.merge([WorkerPage(1, 1, None)])
        assert value(text, "sent_total", status="200", worker="1") == 2
        assert value(text, "busy", worker="1") is None


def test_an_older_incarnations_late_page_is_ignored():
    """A page that was under way when its worker died doesn't count twice."""
    merger, old, new = PageMerger(), Worker(), Worker()
    old.sent.labels("200").inc(10)
    merger.merge([old.page()])
    new.sent.labels("200").inc(1)
    merger.merge([new.page(incarnation=2)])
    text = merger.merge([old.page()])
    assert value(text, "sent_total", status="200", worker="1") == 11


def test_the_own_page_stands_beside_the_workers_without_a_label():
    """The supervising process's samples are in the same families, told apart by the missing label."""
    own, worker = Worker(), Worker()
    own.sent.labels("200").inc(1)
    worker.sent.labels("200").inc(2)
    text = PageMerger().merge([worker.page()], own.page().text)
    assert value(text, "sent_total", status="200") == 1
    assert value(text, "sent_total", status="200", worker="1") == 2
    assert text.count("# TYPE sent_total counter") == 1


def test_special_numbers_survive():
    """Infinity and NaN are written as Prometheus reads them."""
    worker = Worker()
    worker.busy.set(float("inf"))
    worker.took.observe(float("nan"))
    merger = PageMerger()
    assert value(merger.merge([worker.page()]), "busy", worker="1") == float("inf")
    assert "NaN" in merger.merge([worker.page(incarnation=2)])
    samples(merger.merge([worker.page(incarnation=3)]))


def test_samples_without_a_type_are_read_too():
    """A page of another client library without HELP and TYPE is no error."""
    families = parse_page('plain 1\n\n# a comment\nother{a="b"} 2\n')
    assert families["plain"].samples == {"plain": "1"}
    assert families["other"].type == "untyped"
