"""The alert rules: Prometheus takes them, each fires and resolves, and each says where to read on."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from dispatcher.app.merging import PageMerger, WorkerPage
from dispatcher.app.metrics_page import _about
from dispatcher.metrics import Metrics, statistics_of
from tests.deploy.queries import ALERTS, known_names, metrics_in, rules

ROOT = Path(__file__).parents[2]
CASES = [Path(__file__).parent / name for name in ("alerts.test.yaml", "alerts_budget.test.yaml")]
RUNBOOK = ROOT / "deploy" / "RUNBOOK.md"
KUBERNETES = ROOT / "deploy" / "kubernetes"
PLAIN_SCRAPE = ROOT / "deploy" / "prometheus" / "kubernetes.yml"


def alerts():
    """Give the alerts by name."""
    found = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert len(found) == sum("alert" in rule for rule in rules()), "two alerts have one name"
    return found


def anchors(text):
    """Give the anchors of a page's headings, as they are made where Markdown is shown."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_prometheus_takes_the_rules(promtool):
    """Every rule is one that Prometheus loads."""
    assert f"{len(rules())} rules found" in promtool("check", "rules", "--lint-fatal", str(ALERTS))


def test_every_alert_fires_and_resolves_where_it_should(promtool):
    """In Prometheus's own trial runs each alert fires with its labels and text, and is gone when its cause is."""
    assert "SUCCESS" in promtool("test", "rules", *map(str, CASES))


def test_each_alert_has_a_trial_in_which_it_fires_and_one_in_which_it_resolves():
    """No alert is without a trial run in which it is quiet, then fires, then resolves."""
    tried = set()
    for case in [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]:
        trials = case["alert_rule_test"]
        fires = [index for index, trial in enumerate(trials) if trial["exp_alerts"]]
        assert len(fires) == 1, case["name"]
        name = trials[fires[0]]["alertname"]
        assert [trial["alertname"] for trial in (trials[0], trials[-1])] == [name, name], case["name"]
        assert not trials[0]["exp_alerts"], f"{case['name']}: nothing shows that it isn't always there"
        assert not trials[-1]["exp_alerts"], f"{case['name']}: nothing shows that it resolves"
        tried.add(name)
    assert tried == set(alerts())


def test_each_alert_says_where_to_read_on():
    """Each has a severity, a summary and a heading of its own in the runbook, which has no others."""
    headings = anchors(RUNBOOK.read_text())
    linked = set()
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / page, anchor) == (RUNBOOK, name.lower())
        linked.add(anchor)
    assert headings - {"runbook"} == linked


def test_links_of_the_runbook_lead_somewhere():
    """Whatever the runbook points to, a file or a heading, is there."""
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK.read_text()):
        page, _, anchor = target.partition("#")
        text = (RUNBOOK.parent / page).read_text() if page else RUNBOOK.read_text()
        assert not anchor or anchor in anchors(text), target


def test_rules_ask_for_metrics_that_there_are():
    """Each metric in a rule is in the catalogue, or is recorded by another rule."""
    assert {name for rule in rules() for name in metrics_in(rule["expr"])} <= known_names()
    assert metrics_in("sum(dispatcher_surprise_total)") - known_names() == {"dispatcher_surprise_total"}


def test_no_alert_is_on_the_records_of_delay_topics():
    """Records wait on delay topics by design: the one rule on records leaves the own topics out."""
    on_records = [rule["expr"] for rule in rules() if "consumer_lag_records" in rule["expr"]]
    assert on_records
    for expression in on_records:
        (pattern,) = re.findall(r'topic!~"([^"]+)"', expression)
        for topic in ("webhooks.retry.1m", "prod.hooks.retry.6h", "webhooks.overflow", "webhooks.replay"):
            assert re.fullmatch(pattern, topic)
        assert not re.fullmatch(pattern, "events.retry-later")


def jobs_named(relabelings, source, target):
    """Give the names of jobs that relabelings make of the pods of the manifests."""
    (rule,) = [each for each in relabelings if each.get(target) == "job"]
    assert rule[source] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in deployments()]
    return {rule["replacement"].replace("$1", labels["app.kubernetes.io/component"]) for labels in pods}


def deployments():
    """Give the manifests' Deployments."""
    files = [KUBERNETES / "base" / f"{name}.yaml" for name in ("worker", "api")]
    found = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return [each for each in found if each["kind"] == "Deployment"]


def test_scrapes_of_pods_have_the_names_that_alerts_ask_for(promtool, tmp_path):
    """With an operator or without one, jobs are those of the rules, and their pods and ports those of the manifests."""
    monitor = yaml.safe_load((KUBERNETES / "podmonitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    plain = yaml.safe_load(PLAIN_SCRAPE.read_text())
    (job,) = plain["scrape_configs"]
    jobs = jobs_named(endpoint["relabelings"], "sourceLabels", "targetLabel")
    assert jobs == jobs_named(job["relabel_configs"], "source_labels", "target_label")
    asked = {each for rule in rules() for each in re.findall(r'job=~?"([^"]+)"', rule["expr"])}
    assert asked
    assert all(any(re.fullmatch(pattern, each) for each in jobs) for pattern in asked)
    (keep,) = [each for each in job["relabel_configs"] if each.get("action") == "keep"]
    for each in deployments():
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ports = [port["name"] for port in each["spec"]["template"]["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in ports
        assert keep["regex"] == f"{labels['app.kubernetes.io/name']};{endpoint['port']}"
    # Debian's Prometheus is made without the discovery of pods; all else of the job is read.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["webhooks"]}}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(plain))
    assert "SUCCESS" in promtool("check", "config", str(tmp_path / "prometheus.yml"))


def page_of(tiers):
    """Make a page with every kind of metric."""
    metrics = Metrics(tiers)
    metrics.rebalances.labels("source").inc()
    metrics.set_lag({("events", 0): 3})
    metrics.gauge("in_flight_deliveries", lambda: 1)
    metrics.labelled_gauge("lane_latency_seconds", lambda: statistics_of([0.1, 0.2]))
    metrics.labelled_gauge("lane_limit_requests", lambda: statistics_of([1, 2]))
    return metrics.page().decode()


@pytest.mark.parametrize("tiers", [(), ("1m", "6h")], ids=["api", "worker"])
def test_prometheus_likes_the_page(promtool, tiers):
    """Prometheus's linter finds no fault with the names, labels and help texts of a page with every kind of metric."""
    assert promtool("check", "metrics", page=page_of(tiers)) == ""


def test_prometheus_likes_the_page_of_several_workers(promtool):
    """Nor does it with the merged page, on which a worker's start is that of its newest process."""
    merger = PageMerger()
    pages = [WorkerPage(1, 1, page_of(["1m"])), WorkerPage(2, 1, page_of(["1m"]))]
    workers = [SimpleNamespace(number=1, incarnation=1), SimpleNamespace(number=2, incarnation=2)]
    merger.merge(pages, _about(workers, pages))
    newer = page_of(["1m"]).replace(
        "dispatcher_process_start_time_seconds 1", "dispatcher_process_start_time_seconds 2"
    )
    pages[1] = WorkerPage(2, 2, newer)
    merged = merger.merge(pages, _about(workers, pages))
    assert promtool("check", "metrics", page=merged) == ""
    started = re.findall(r'^dispatcher_process_start_time_seconds\{worker="(\d)"\} (\d)', merged, re.MULTILINE)
    assert started == [("1", "1"), ("2", "2")]
    assert 'dispatcher_worker_restarts_total{worker="2"} 1' in merged
    assert set(re.findall(r"^# TYPE (\S+)", merged, re.MULTILINE)) <= known_names() | {
        name.removesuffix("_count") for name in known_names()
    }
