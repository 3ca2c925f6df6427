"""`make install` on machines that lack something."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON_WITHOUT_PIP = """#!/bin/sh
# Like Debian's python3 without python3-venv: it leaves a folder behind that has a python and no pip.
for last; do :; done
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$last/bin"
  printf '#!/bin/sh\\nexit %s\\n' "$([ -e whole ]; echo $?)" > "$last/bin/python"
  chmod +x "$last/bin/python"
  [ -e whole ]
fi
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="this machine has no make")
def test_a_half_made_environment_is_made_anew(tmp_path):
    """After `python3 -m venv` failed, and what it lacks was installed, the next `make install` works."""
    (tmp_path / "deploy").mkdir()
    for name in ("Makefile", "pyproject.toml", "deploy/requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python3"
    python.write_text(PYTHON_WITHOUT_PIP)
    python.chmod(0o755)

    def install():
        return subprocess.run(
            ["make", f"PYTHON={python}", "install"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    failed = install()
    assert failed.returncode != 0
    assert "apt-get install python3-venv" in failed.stderr
    (tmp_path / "whole").touch()
    again = install()
    assert again.returncode == 0, again.stderr
