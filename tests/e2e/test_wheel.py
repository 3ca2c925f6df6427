"""The wheel works where nothing else of the project is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A virtual environment with the locked run-time packages and the wheel, and none of the source tree."""
    folder = tmp_path_factory.mktemp("bare")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    run([sys.executable, "-m", "venv", str(folder / "venv")])
    python = folder / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(ROOT / "deploy/requirements.lock")])
    run([*pip, "--no-deps", str(next(folder.glob("*.whl")))])
    return folder


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environ():
    return {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "PYTHON"))}


def test_the_catalogue_is_in_the_wheel(bare):
    """The event catalogue is found without the source tree."""
    program = "from dispatcher.operations.catalogue import load_catalogue; print(len(load_catalogue(None).types))"
    assert run([bare / "venv/bin/python", "-c", program], cwd=bare, env=environ()) == "16\n"


def test_the_console_is_in_the_wheel(bare):
    """Its templates, style sheet and script are found without the source tree; its pictures stay out."""
    program = (
        "from dispatcher.console.assets import Assets; from dispatcher.console.drawing import Drawing; "
        "from importlib.resources import files; assets = Assets(); "
        "print(len(Drawing(assets).templates()) > 10, *sorted(assets.urls), "
        "files('dispatcher.console').joinpath('pictures').is_dir())"
    )
    shown = run([bare / "venv/bin/python", "-c", program], cwd=bare, env=environ())
    assert shown == "True console.css console.js icon.svg False\n"


def test_it_starts_and_says_what_is_missing(bare):
    """A worker without addresses ends with exit code 2 and a line for each of them."""
    done = subprocess.run(
        [bare / "venv/bin/dispatcher", "worker"], capture_output=True, text=True, check=False, cwd=bare, env=environ()
    )
    assert done.returncode == 2
    assert "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS" in done.stderr


def test_local_mode_says_which_packages_it_needs(bare):
    """`run --local` without the packages of local mode names the command that installs them."""
    done = subprocess.run(
        [bare / "venv/bin/dispatcher", "run", "--local"],
        capture_output=True, text=True, check=False, cwd=bare, env=environ(),
    )  # fmt: skip
    assert done.returncode == 1
    assert "webhook-dispatcher[local]" in done.stderr
