"""The compiled copy behaves as the source does: the pipeline's tests, and a worker's ladder on real services."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Those that take parts of other kinds for the real ones, which compiled code refuses, or count calls in it.
UNFIT = ("test_lanes", "test_shares", "test_offset_rule", "test_matching", "takes_up_a_few", "taken_up_a_few")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with the compiled copy and the tests."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler is installed, so the compiled copy was not tried")
    folder = tmp_path_factory.mktemp("compiled")
    run(sys.executable, str(ROOT / "deploy/compile.py"), str(folder), cwd=ROOT)
    for name in ("tests", "schemas"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(*command, cwd, seconds=600):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8_000:]
    return done.stdout


@pytest.mark.timeout(700)
def test_decisions_and_pipeline_are_the_same(compiled):
    """What is imported there is machine code, and it passes the tests of the source."""
    program = "from dispatcher.pipeline import lanes; from dispatcher.core import signing as s; print(lanes, s)"
    assert run(sys.executable, "-c", program, cwd=compiled).count(".so") == 2
    left_out = " and ".join(f"not {name}" for name in UNFIT)
    run(sys.executable, "-m", "pytest", "-x", "-k", left_out, "tests/unit/core", "tests/unit/pipeline", cwd=compiled)


@pytest.mark.slow
@pytest.mark.timeout(1_600)
@pytest.mark.parametrize("tests", ["tests/e2e/test_retry_ladder.py", "tests/e2e/test_bad_records.py", "tests/faults"])
def test_workers_are_the_same(compiled, tests):
    """Workers on real services do what they do uncompiled, whatever fails."""
    run(sys.executable, "-m", "pytest", "-x", "-m", "not slow", tests, cwd=compiled, seconds=1_500)
