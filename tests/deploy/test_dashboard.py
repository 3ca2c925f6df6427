"""Every query of the dashboard and of the rules, asked of a Prometheus that scraped a worker with something to tell."""

import asyncio
import json
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.metrics import instruments
from tests.deploy.queries import ALERTS, known_names, metrics_in
from tests.deployment import deploy, event, eventually, make_settings

DASHBOARD = ALERTS.parent / "grafana" / "dashboard.json"
# What stands on a page only once it happened, or only on the page of `dispatcher run`.
NEVER_HAPPENED = {"dispatcher_commit_failures_total", "dispatcher_worker_up", "dispatcher_worker_restarts_total"}
# No API runs in this test.
NOT_SCRAPED = 'job="dispatcher-api"'


def panels():
    """Give the dashboard's panels that ask something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries():
    """Give each query of a panel with what Grafana would put in the place of its variables."""
    values = {"$__rate_interval": "30s", "$instance": ".+"}
    found = []
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in values.items():
                text = text.replace(name, value)
            assert "$" not in text, f"{panel['title']} asks with a variable that nobody sets"
            found.append((panel["title"], text))
    return found


def test_panels_are_told_apart():
    """Each panel has a title, a description and an id of its own, and none covers another."""
    covered = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & covered, panel["title"]
        assert at["x"] + at["w"] <= 24
        covered |= cells
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    assert all(panel["description"] for panel in panels())
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_ask_for_metrics_that_there_are():
    """Each metric in a panel is in the catalogue, and each of a worker's own in the catalogue is in some panel."""
    asked = {name for _, query in queries() for name in metrics_in(query)}
    assert asked <= known_names()
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    left_out = {each.name for each in instruments()} - shown
    assert left_out == {
        "dispatcher_worker_up",
        "dispatcher_worker_restarts_total",
        "dispatcher_process_virtual_memory_bytes",
    }


def test_prometheus_understands_every_query(promtool, tmp_path):
    """Each query of a panel is one that Prometheus can read."""
    rules = [{"record": f"panel:{number}", "expr": query} for number, (_, query) in enumerate(queries())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_prometheus_takes_its_configuration(promtool, tmp_path):
    """The configuration that compose runs Prometheus with is one, with the rules beside it."""
    text = (ALERTS.parent / "prometheus" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/alerts.yaml", str(ALERTS)))
    assert "1 rule files found" in promtool("check", "config", str(tmp_path / "prometheus.yml"))


@asynccontextmanager
async def scraping(program, folder, target):
    """Run a Prometheus that scrapes a target each second; yields a function that asks it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "dispatcher-worker", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

        def get(query):
            address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    return json.load(answer)["data"]["result"]
            except urllib.error.HTTPError as error:
                if error.code == 503:
                    return []  # it is starting
                pytest.fail(f"{query}: {error.read().decode()}", pytrace=False)
            except OSError:
                assert process.poll() is None, Path(log.name).read_text()[-3000:]
                return []

        try:
            yield lambda query: asyncio.to_thread(get, query)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 30)


async def test_every_query_of_panels_and_rules_has_an_answer(prometheus, promtool, services, unique_name, tmp_path):
    """A worker delivered, retried and dead-lettered: Prometheus answers every panel and every rule, and none is empty.

    The worker's page is one that Prometheus's linter finds no fault with, and has nothing that the catalogue lacks.
    """
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("dash"))
    async with deploy(settings) as deployment:
        deployment.receiver.answer("/broken", 500)
        good = await deployment.webhook("/good")
        broken = await deployment.webhook("/broken", max_attempts=2, events=["user.deleted"])
        worker = deployment.process()
        async with worker, scraping(prometheus, tmp_path, f"127.0.0.1:{worker.port}") as ask:
            await eventually(lambda: ask("dispatcher_events_total"), bool, "the page was scraped")
            await deployment.publish(*(event(number) for number in range(20)), event("last", "user.deleted"))
            await deployment.until_logged(deployment.delivery_id("evt_last", good), good, DeliveryStatus.DELIVERED)
            await deployment.until_logged(deployment.delivery_id("evt_last", broken), broken, DeliveryStatus.FAILED)
            ended = "dispatcher:delivery_failures:ratio_rate5m > 0 and on () dispatcher_consumer_lag_records >= 0"
            await eventually(lambda: ask(ended), bool, "what failed was scraped")

            page = (await asyncio.to_thread(worker._get, "/metrics"))[1]
            assert promtool("check", "metrics", page=page) == ""
            types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
            catalogue = {each.name: each.type for each in instruments()}
            assert types.items() <= catalogue.items()
            assert catalogue.keys() - types.keys() == {"dispatcher_worker_up", "dispatcher_worker_restarts_total"}

            asked = queries() + [
                (rule.get("alert") or rule["record"], part)
                for group in yaml.safe_load(ALERTS.read_text())["groups"]
                for rule in group["rules"]
                for part in ([rule["expr"]] if "record" in rule else _sides(rule["expr"]))
            ]
            asked = [(title, query) for title, query in asked if NOT_SCRAPED not in query]
            empty = [title for title, query in asked if not await ask(query) and not metrics_in(query) & NEVER_HAPPENED]
            assert empty == []
            firing = await ask('ALERTS{alertstate="firing"}')
            assert {each["metric"]["alertname"] for each in firing} == set()


def _sides(expression):
    """Give the sums and samples that an alert compares: it is empty itself while all is well."""
    if expression.startswith("absent"):
        return [expression.removeprefix("absent").strip("()")]
    plain = re.sub(r"(>|==) [0-9.]+( \* [0-9.]+)?", "", expression)
    assert not re.search(r"[<>]|==", plain)
    return [plain]
