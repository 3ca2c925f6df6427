"""The manifests: structure, names and settings; no cluster is needed, and none has run them."""

import os
import re
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from dispatcher import config
from dispatcher.app.stuck_loop import STUCK_SECONDS
from dispatcher.cli import COMMANDS
from dispatcher.config import load
from dispatcher.core import addresses
from dispatcher.core.errors import SettingsError
from dispatcher.core.topics import TopicNames, group_of

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
DRAIN_SECONDS = 25
KEY = "a" * 43 + "="


def kustomization(folder="base"):
    """Give what a folder's kustomization says."""
    return yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())


def documents(folder="base"):
    """Give the documents of the files that a folder's kustomization names."""
    files = [name for name in kustomization(folder)["resources"] if name.endswith(".yaml")]
    return [each for name in files for each in yaml.safe_load_all((KUBERNETES / folder / name).read_text())]


def of_kind(kind, folder="base"):
    """Give the documents of one kind by name."""
    return {each["metadata"]["name"]: each for each in documents(folder) if each["kind"] == kind}


def pods():
    """Give each Deployment's name with its pod."""
    return [(name, each["spec"]["template"]) for name, each in of_kind("Deployment").items()]


def settings_given():
    """Give the environment that the pods get: the settings, and the secret as somebody filled it in."""
    (generated,) = kustomization()["configMapGenerator"]
    secret = yaml.safe_load((KUBERNETES / "base" / "secret.template.yaml").read_text())
    given = dict(each.split("=", 1) for each in generated["literals"])
    assert not given.keys() & secret["stringData"].keys()
    return {**given, **secret["stringData"], "DISPATCHER_ENCRYPTION_KEYS": KEY}


def selects(selector, labels):
    """Say whether a selector takes these labels."""
    return selector["matchLabels"].items() <= labels.items()


def test_every_file_is_used():
    """Each file in the folders belongs to a kustomization, but for the secret, which nobody should apply as it is."""
    for folder in ("base", "keda"):
        found = {each.name for each in (KUBERNETES / folder).iterdir()}
        named = {name for name in kustomization(folder)["resources"] if name.endswith(".yaml")}
        assert found - named - {"kustomization.yaml"} == ({"secret.template.yaml"} if folder == "base" else set())


def test_settings_are_settings():
    """What the pods get are settings that a worker and an API start with, and they listen where probes reach them."""
    read = load(settings_given())
    assert (read.server.api_host, read.server.metrics_host) == ("0.0.0.0", "0.0.0.0")
    for name, pod in pods():
        (container,) = pod["spec"]["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert ports.pop("metrics") == read.server.metrics_port
        assert list(ports.values()) == ([read.server.api_port] if name.endswith("api") else [])


def test_secrets_stand_in_the_secret_alone():
    """What is a secret among the settings is in the Secret's template, without a value, and not in the ConfigMap."""
    by_name = config.table.by_full_name()
    (generated,) = kustomization()["configMapGenerator"]
    assert not [each for each in generated["literals"] if by_name[each.split("=", 1)[0]].secret]
    template = yaml.safe_load((KUBERNETES / "base" / "secret.template.yaml").read_text())
    for name, value in template["stringData"].items():
        assert by_name[name].secret
        assert "FILL-IN" in value or "PASSWORD" in value
    with pytest.raises(SettingsError):
        load({**settings_given(), **template["stringData"]})


def test_names_that_pods_ask_for_are_there():
    """Each pod reads the ConfigMap and the Secret, in one namespace, and runs a role that the image knows."""
    (generated,) = kustomization()["configMapGenerator"]
    secret = yaml.safe_load((KUBERNETES / "base" / "secret.template.yaml").read_text())
    assert secret["metadata"]["namespace"] == kustomization()["namespace"] == next(iter(of_kind("Namespace")))
    for name, pod in pods():
        (container,) = pod["spec"]["containers"]
        assert container["envFrom"] == [
            {"configMapRef": {"name": generated["name"]}},
            {"secretRef": {"name": secret["metadata"]["name"]}},
        ]
        assert [container["image"]] == [each["name"] for each in kustomization()["images"]]
        assert container["args"] == [name.removeprefix("dispatcher-")]
        assert set(container["args"]) <= COMMANDS.keys()


def test_topics_are_made_as_the_rest_runs():
    """What a job for the topics is made from never runs by itself, and its pod may do what a worker's may, no more."""
    (cron,) = of_kind("CronJob").values()
    assert cron["spec"]["suspend"] is True
    pod, worker = cron["spec"]["jobTemplate"]["spec"]["template"], dict(pods())["dispatcher-worker"]
    (mine,), (other,) = pod["spec"]["containers"], worker["spec"]["containers"]
    assert mine["args"] == ["topics", "ensure"]
    assert [mine[each] for each in ("image", "envFrom", "securityContext")] == [
        other[each] for each in ("image", "envFrom", "securityContext")
    ]
    for each in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        assert pod["spec"][each] == worker["spec"][each]
    egress = of_kind("NetworkPolicy")["dispatcher-egress"]["spec"]["podSelector"]
    assert selects(egress, pod["metadata"]["labels"])
    taken = [*of_kind("Deployment").values(), *of_kind("PodDisruptionBudget").values()]
    assert not any(selects(each["spec"]["selector"], pod["metadata"]["labels"]) for each in taken)


def test_the_log_is_kept_for_longer_than_dead_letters():
    """What was handled is known from the log for as long as its dead letter may be on the topic."""
    read = load(settings_given())
    assert read.mongo.delivery_retention_days >= read.topics.dead_letter_retention_days + 10


def test_the_variables_of_services_are_kept_out():
    """Services' own variables would be taken for settings, and stop each process at once; so pods get none."""
    with pytest.raises(SettingsError):
        load({**settings_given(), "DISPATCHER_API_PORT": "tcp://10.0.0.1:80"})
    with pytest.raises(SettingsError):
        load({**settings_given(), "DISPATCHER_API_SERVICE_HOST": "10.0.0.1"})
    assert any(name.startswith("dispatcher") for name in of_kind("Service"))
    assert all(pod["spec"]["enableServiceLinks"] is False for _, pod in pods())


def test_pods_may_do_as_little_as_they_need():
    """No pod is root, writes to its root, gains privileges, has capabilities or a token of the cluster's API."""
    for _, pod in pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        dockerfile = (KUBERNETES.parent / "Dockerfile").read_text()
        assert f"USER {spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" in dockerfile
        assert "volumes" not in spec
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"memory"} == set(container["resources"]["limits"])
    (namespace,) = of_kind("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_probes_ask_what_there_is_and_are_patient():
    """Life is asked of /healthz and readiness of /readyz; a loop that hangs ends itself before a probe does it."""
    for _, pod in pods():
        (container,) = pod["spec"]["containers"]
        probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
        paths = {name: (each["httpGet"]["path"], each["httpGet"]["port"]) for name, each in probes.items()}
        assert paths == {
            "startup": ("/healthz", "metrics"),
            "liveness": ("/healthz", "metrics"),
            "readiness": ("/readyz", "metrics"),
        }
        assert probes["liveness"]["periodSeconds"] * probes["liveness"]["failureThreshold"] > STUCK_SECONDS
        assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= 60
        assert pod["spec"]["terminationGracePeriodSeconds"] == 30 > DRAIN_SECONDS


def test_selectors_take_their_own_pods():
    """Deployments, budgets, the Service, policies and spreads take the pods that they mean, and no others."""
    labels = {name: pod["metadata"]["labels"] for name, pod in pods()}
    assert len(labels) == 2
    for name, each in of_kind("Deployment").items():
        assert {other for other in labels if selects(each["spec"]["selector"], labels[other])} == {name}
        (spread,) = each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"] == each["spec"]["selector"]
    for name, each in of_kind("PodDisruptionBudget").items():
        assert {other for other in labels if selects(each["spec"]["selector"], labels[other])} == {name}
        assert each["spec"]["maxUnavailable"] < of_kind("Deployment")[name]["spec"]["replicas"]
        assert each["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert of_kind("PodDisruptionBudget").keys() == labels.keys()
    for name, each in of_kind("Service").items():
        assert each["spec"]["selector"] == labels[name]
        ports = {port["name"] for port in dict(pods())[name]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


def test_every_pod_is_closed_but_for_what_it_needs():
    """For each pod policies hold in both directions; in goes Prometheus, and to the API the ingress; nobody else."""
    policies = of_kind("NetworkPolicy").values()
    for name, pod in pods():
        mine = [each["spec"] for each in policies if selects(each["spec"]["podSelector"], pod["metadata"]["labels"])]
        assert {kind for each in mine for kind in each["policyTypes"]} == {"Ingress", "Egress"}
        let_in = {
            (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
            for each in mine
            for rule in each.get("ingress", ())
            for peer in rule["from"]
            for port in rule["ports"]
        }
        wanted = {("monitoring", "metrics")} | ({("ingress-nginx", "http")} if name.endswith("api") else set())
        assert let_in == wanted


def test_the_way_out_leaves_out_what_the_dispatcher_refuses():
    """Endpoints may be anywhere but where the dispatcher itself would not send, on the ports that it would send to."""
    rules = of_kind("NetworkPolicy")["dispatcher-egress"]["spec"]["egress"]
    (internet,) = [rule for rule in rules if any("ipBlock" in peer for peer in rule["to"])]
    assert all("ports" in rule for rule in rules)
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in internet["to"]}
    left_out = [ip_network(each) for excepted in blocks.values() for each in excepted]
    assert set(blocks) == {"0.0.0.0/0", str(addresses._GLOBAL_V6)}
    for network, _ in (*addresses._FORBIDDEN_V4, *addresses._FORBIDDEN_V6):
        if network.version == 6 and not network.subnet_of(addresses._GLOBAL_V6):
            continue
        assert any(network.version == each.version and network.subnet_of(each) for each in left_out), network
    for cidr, excepted in blocks.items():
        assert all(ip_network(each).subnet_of(ip_network(cidr)) for each in excepted)
    ports = [(each["port"], each.get("endPort", each["port"])) for each in internet["ports"]]
    assert ports == [(80, 80), (443, 443), (1024, 65535)]
    kafka = settings_given()["DISPATCHER_KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2]
    assert {port["port"] for rule in rules if rule is not internet for port in rule["ports"]} == {53, int(kafka), 27017}


def test_the_autoscaler_looks_at_source_and_overflow_alone():
    """Workers are scaled by the lag of source and overflow, under the names that their groups and topics have."""
    (scaled,) = of_kind("ScaledObject", "keda").values()
    assert scaled["metadata"]["namespace"] == kustomization()["namespace"]
    spec, read = scaled["spec"], load(settings_given()).topics
    assert spec["scaleTargetRef"] == {"name": "dispatcher-worker"}
    assert "dispatcher-worker" in of_kind("Deployment")
    group, names = read.consumer_group, TopicNames(read.prefix, read.tiers)
    triggers = {each["metadata"]["topic"]: each["metadata"] for each in spec["triggers"]}
    assert {topic: each["consumerGroup"] for topic, each in triggers.items()} == {
        read.source_topics[0]: group_of(group, "source"),
        names.overflow: group_of(group, "overflow"),
    }
    for each in triggers.values():
        assert each["bootstrapServersFromEnv"] in settings_given()
        assert all(isinstance(value, str) for value in each.values())
        assert int(each["lagThreshold"]) > 0
    assert {each["type"] for each in spec["triggers"]} == {"kafka"}
    assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"] <= read.partitions
    assert set(spec) == {
        *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "advanced", "triggers")
    }
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] > behavior["scaleUp"]["stabilizationWindowSeconds"] > 0
    (patch,) = kustomization("keda")["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": "dispatcher-worker"}
    assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]


@pytest.mark.parametrize("folder", ["base", "keda"])
def test_kustomize_makes_one_set_of_them(folder):
    """Kustomize fills names, namespace and image in, and gives the settings a name that changes with them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH, so kustomize was not tried")
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    deployments = {each["metadata"]["name"]: each for each in made if each["kind"] == "Deployment"}
    (settings,) = [each["metadata"]["name"] for each in made if each["kind"] == "ConfigMap"]
    assert re.fullmatch(r"dispatcher-settings-[a-z0-9]{10}", settings)
    for each in deployments.values():
        (container,) = each["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"][0]["configMapRef"]["name"] == settings
        assert re.fullmatch(r"registry\.example/webhook-dispatcher:\d+\.\d+\.\d+", container["image"])
        assert each["metadata"]["namespace"] == "webhooks"
    assert ("replicas" in deployments["dispatcher-worker"]["spec"]) is (folder == "base")
    assert len(made) == len(documents()) + 1 + (folder == "keda")


def test_a_folder_of_ones_own_changes_what_is_its_own(tmp_path):
    """The folder that the README shows puts its own image and addresses in the place of the examples."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH, so kustomize was not tried")
    _, _, behind = (KUBERNETES.parent / "README.md").read_text().partition("Make a folder of your own:\n\n```yaml\n")
    shown, _, behind = behind.partition("```")
    patches, _, _ = behind.partition("```yaml\n")[2].partition("```")
    shown += patches
    folder = os.path.relpath(KUBERNETES / "base", tmp_path)
    text = shown.replace("../webhook-dispatcher/deploy/kubernetes/base", folder)
    text = text.replace("newName: …, newTag: …", 'newName: mine, newTag: "7"').replace("SERVERS=…", "SERVERS=mine:9")
    assert "…" not in text
    (tmp_path / "kustomization.yaml").write_text(text)
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    (settings,) = [each["data"] for each in made if each["kind"] == "ConfigMap"]
    (base,) = kustomization()["configMapGenerator"]
    assert settings == {
        **dict(each.split("=", 1) for each in base["literals"]),
        "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": "mine:9",
    }
    images = {
        each["spec"]["template"]["spec"]["containers"][0]["image"] for each in made if each["kind"] == "Deployment"
    }
    assert images == {"mine:7"}
    templates = [each["spec"].get("template") for each in made if each["kind"] == "Deployment"]
    templates += [each["spec"]["jobTemplate"]["spec"]["template"] for each in made if each["kind"] == "CronJob"]
    assert len(templates) == 3
    for pod in templates:
        (container,) = pod["spec"]["containers"]
        assert [each["name"] for each in container["volumeMounts"]] == [each["name"] for each in pod["spec"]["volumes"]]
    (rules,) = [each["spec"]["egress"] for each in made if each["metadata"]["name"] == "dispatcher-egress"]
    before = of_kind("NetworkPolicy")["dispatcher-egress"]["spec"]["egress"]
    changed = [number for number, rule in enumerate(rules) if rule != before[number]]
    assert changed == [1]
    kafka = settings_given()["DISPATCHER_KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2]
    assert [port["port"] for port in before[1]["ports"]] == [int(kafka)]
