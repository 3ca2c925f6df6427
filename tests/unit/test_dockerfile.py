"""What the image is made from, read line by line: no engine that could build it is needed."""

import json
import re
import tomllib
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def stages():
    """The stages, each a list of (instruction, argument), continued lines made one."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0][0] == "ARG"
    found: list[list[tuple[str, str]]] = []
    for word, argument in lines[1:]:
        assert word.isupper(), f"no instruction: {word}"
        if word == "FROM":
            found.append([])
        found[-1].append((word, " ".join(argument.split())))
    return found


def arguments(stage, word):
    return [argument for name, argument in stage if name == word]


def test_what_builds_stays_behind(stages):
    """There are two stages of one base; the second takes the installed packages from the first, and runs nothing."""
    build, final = stages
    assert arguments(build, "FROM") == ["${BASE} AS build"]
    assert arguments(final, "FROM") == ["${BASE}"]
    assert arguments(final, "COPY") == ["--from=build /opt/dispatcher /opt/dispatcher"]
    assert not arguments(final, "RUN")
    assert not arguments(final, "ADD") + arguments(build, "ADD")


def test_it_runs_as_a_number_that_is_not_root(stages):
    """The user is a number other than 0, with a group, and nothing after it changes that."""
    final = stages[-1]
    (user,) = arguments(final, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    after = [word for word, _ in final[final.index(("USER", user)) + 1 :]]
    assert set(after) <= {"EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_whatever_is_installed_is_locked(stages):
    """Each pip install has hashes, or takes nothing but the wheel that was just built."""
    (default,) = arguments(stages[0], "ARG")
    name, _, lock = default.partition("=")
    runs = " && ".join(arguments(stages[0], "RUN")).replace(f"${{{name}}}", lock).split(" && ")
    installs = [run for run in runs if " install " in f" {run} "]
    assert len(installs) == 3
    for run in installs:
        assert "--require-hashes -r deploy/requirements" in run or "--no-deps --no-index /wheels" in run
    named = set(re.findall(r"deploy/\S+\.lock", " ".join(runs)))
    assert named == {"deploy/requirements.lock", "deploy/requirements-build.lock"}
    copied = arguments(stages[0], "COPY")[0].split()[:-1]
    assert set(copied) == named | {"deploy/requirements-otel.lock"}
    assert all((DEPLOY.parent / each).is_file() for each in copied)


def test_it_needs_no_writable_folder_and_no_secret(stages):
    """Nothing is a volume, byte code isn't written when it runs, and no setting in the image is a secret."""
    final = stages[-1]
    assert not arguments(final, "VOLUME")
    (env,) = arguments(final, "ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in env
    assert not re.search(r"KEY|PASS|SECRET|TOKEN|URI", env)
    assert arguments(stages[0], "ARG") == ["LOCK=requirements.lock"]


def test_the_command_is_a_role(stages):
    """It starts a worker unless told otherwise, without a shell, so that SIGTERM reaches it; ports are the defaults."""
    final = stages[-1]
    assert json.loads(arguments(final, "ENTRYPOINT")[0]) == ["dispatcher"]
    assert json.loads(arguments(final, "CMD")[0]) == ["worker"]
    assert arguments(final, "EXPOSE") == ["8080 9464"]
    (check,) = arguments(final, "HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    compile(command[2], "HEALTHCHECK", "exec")
    assert command[:2] == ["python", "-c"]
    assert "/healthz" in command[2]


def test_nothing_else_reaches_the_builder(stages):
    """Everything is left out but what the image copies: no settings, no local data, no history."""
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    lines = [line for line in ignore if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for copy in arguments(stages[0], "COPY") for word in copy.split()[:-1]}
    assert let_in == copied
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    assert project["project"]["readme"] in copied
