"""Prometheus's own tools, where this machine has them."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

ADVICE = "install Debian's package prometheus (apt-get install --no-install-recommends prometheus)"


def tool(name: str) -> str:
    """Find a tool; skip, or fail where `TESTS_NEED_PROMTOOL` is set."""
    found = shutil.which(name)
    if found is None:
        sentence = f"{name} is not on the PATH, so what it checks was not checked: {ADVICE}"
        if os.environ.get("TESTS_NEED_PROMTOOL"):
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
    return found


@pytest.fixture(scope="session")
def promtool() -> Callable[..., str]:
    """Run promtool; gives what it printed, and fails with that where it found fault."""
    program = tool("promtool")

    def run(*arguments: str, page: str | None = None) -> str:
        done = subprocess.run(
            [program, *arguments], input=page, capture_output=True, text=True, check=False, timeout=120
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-6000:]
        return said

    return run


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Where the Prometheus server is."""
    return tool("prometheus")
