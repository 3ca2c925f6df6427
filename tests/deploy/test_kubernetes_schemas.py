"""The manifests against the schemas of Kubernetes: every field is one that there is, and of its type."""

import copy
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.37")
"""The oldest and the newest that the README names."""
OTHERS = ("kustomize.config.k8s.io/", "keda.sh/", "monitoring.coreos.com/")
"""API groups that aren't Kubernetes' own: it has no schemas of theirs."""


def resources(text):
    """Give those of a file's documents that Kubernetes itself knows."""
    return [each for each in yaml.safe_load_all(text) if not each["apiVersion"].startswith(OTHERS)]


def in_files():
    """Give the resources of every file, the secret's template included, each with its name."""
    return {
        f"{path.parent.name}/{path.stem} {each['kind']} {each['metadata']['name']}": each
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for each in resources(path.read_text())
    }


def check(resource, version):
    """Check a resource strictly; an older schema doesn't stand in for one that is missing."""
    assert kubernetes_validate.validate(resource, version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", in_files().values(), ids=in_files().keys())
def test_a_resource_keeps_to_its_schema(resource, version):
    """No field that the version doesn't know, none of another type, and none missing."""
    check(resource, version)


def test_every_kind_is_among_them():
    """What is checked is what a rollout applies; the ConfigMap is made by kustomize."""
    kinds = {each["kind"] for each in in_files().values()}
    assert kinds == {"CronJob", "Deployment", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", ["base", "keda"])
def test_what_kustomize_makes_keeps_to_its_schemas(folder, version):
    """The set as it would be applied, with the settings' ConfigMap."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH, so kustomize was not tried")
    command = ["kubectl", "kustomize", str(KUBERNETES / folder)]
    made = resources(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert "ConfigMap" in {each["kind"] for each in made}
    for each in made:
        check(each, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_slip_is_found(version):
    """A field that is misspelt, deep in a pod, is an error, and so is one of another type."""
    good = next(each for each in in_files().values() if each["kind"] == "Deployment")
    misspelt, mistyped = copy.deepcopy(good), copy.deepcopy(good)
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSecond"] = 5
    mistyped["spec"]["replicas"] = "two"
    for each in (misspelt, mistyped):
        with pytest.raises(kubernetes_validate.ValidationError):
            check(each, version)
