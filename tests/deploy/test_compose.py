"""compose.yaml: names, order, files and settings; no engine is needed, and none has run it."""

from pathlib import Path

import pytest
import yaml

from dispatcher.cli import COMMANDS
from dispatcher.config import load

DEPLOY = Path(__file__).parents[2] / "deploy"
KEY = "a" * 43 + "="


@pytest.fixture(scope="module")
def compose():
    """The file, its anchors resolved."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def own(compose):
    """Give the services of the dispatcher's image."""
    return {name: each for name, each in compose["services"].items() if each["image"] == "webhook-dispatcher"}


def test_everything_is_there(compose):
    """Kafka, a replica set, the topics, an API, two workers, Prometheus and Grafana; images are of a version."""
    services = compose["services"]
    assert {"kafka", "mongodb", "topics", "api", "worker", "prometheus", "grafana"} <= services.keys()
    assert services["worker"]["deploy"]["replicas"] == 2
    assert "--replSet" in services["mongodb"]["command"]
    for name, each in services.items():
        assert name in own(compose) or each["image"].rpartition(":")[2][:2].strip("v.").isdigit(), name
    assert services["source-topic"]["image"] == services["kafka"]["image"]


def test_the_settings_are_settings(compose):
    """Each of the dispatcher's services runs a command that there is, with settings that it starts with."""
    for name, each in own(compose).items():
        given = each["environment"]
        assert given["DISPATCHER_ENCRYPTION_KEYS"].startswith("${DISPATCHER_ENCRYPTION_KEYS:?")
        read = load({**given, "DISPATCHER_ENCRYPTION_KEYS": KEY})
        assert read.kafka.bootstrap_servers.partition(":")[0] in compose["services"]
        assert each["command"][0] in COMMANDS, name
        replica_set = compose["services"]["mongodb"]["command"]
        assert f"replicaSet={replica_set[replica_set.index('--replSet') + 1]}" in read.mongo.uri
        # The image says where to listen.
        assert not {"DISPATCHER_API_HOST", "DISPATCHER_METRICS_HOST"} & given.keys()
        topic = compose["services"]["source-topic"]["command"]
        assert topic[topic.index("--topic") + 1] in read.topics.source_topics


def test_they_may_do_as_little_as_they_need(compose):
    """The dispatcher's services have a root that is read-only, no capabilities, and time to drain."""
    for each in own(compose).values():
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert each["stop_grace_period"] == "30s"
        assert not {"user", "privileged", "volumes", "tmpfs"} & each.keys()


def test_what_starts_waits_for_what_it_needs(compose):
    """Each dependency is a service, healthy ones have a check, and workers wait for the topics and for MongoDB."""
    services = compose["services"]
    for name, each in services.items():
        wanted = each.get("depends_on", {})
        for other, how in wanted.items() if isinstance(wanted, dict) else ():
            assert other in services, name
            if how["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"]
            if how["condition"] == "service_completed_successfully":
                assert services[other].get("restart", "no") == "no"
    for role in ("api", "worker"):
        assert services[role]["depends_on"].keys() == {"topics", "mongodb"}
    assert services["topics"]["healthcheck"] == {"disable": True}


def test_files_and_volumes_are_there(compose):
    """What is mounted is a file of this folder or a volume that is declared; so is the image's Dockerfile."""
    declared = set(compose["volumes"])
    used = set()
    for each in compose["services"].values():
        for mount in each.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
                assert mount.endswith(":ro")
            else:
                used.add(source)
    assert used == declared
    for each in own(compose).values():
        assert (DEPLOY / each["build"]["context"] / each["build"]["dockerfile"]).is_file()


def test_nothing_is_open_to_others(compose):
    """Every published port listens on this machine alone."""
    published = [port for each in compose["services"].values() for port in each.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_prometheus_and_grafana_find_what_they_are_told(compose):
    """Prometheus scrapes the services by name and has the rules; Grafana has Prometheus and the dashboard."""
    services = compose["services"]
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    mounts = [each.split(":")[1] for each in services["prometheus"]["volumes"]]
    assert set(prometheus["rule_files"]) <= set(mounts)
    assert any(f"--config.file={path}" in services["prometheus"]["command"] for path in mounts)
    for job in prometheus["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        assert [job["job_name"]] == [f"dispatcher-{name}" for name in found["names"]]
        assert set(found["names"]) <= own(compose).keys()
        assert found["port"] == load({"DISPATCHER_LOG_LEVEL": "info"}, needs=()).server.metrics_port
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dispatcher.yaml").read_text())["providers"]
    path = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert path.startswith(provider["options"]["path"])
    assert any(each.split(":")[1] == path for each in services["grafana"]["volumes"])
