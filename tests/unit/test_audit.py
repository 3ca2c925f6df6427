"""`make audit`: what pip-audit says becomes a sentence and an exit code; pip-audit itself is replaced."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = {"name": "click", "version": "8.5.1", "vulns": []}
BAD = {"name": "pip", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}]}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1.0)"}


@pytest.fixture
def audit(tmp_path):
    """Run the audit with a pip-audit that writes and exits as told; gives what ran, and what it was called with."""

    def run(written, code=0, error=""):
        program = tmp_path / "pip_audit.py"
        called = tmp_path / "called"
        program.write_text(
            f"import sys; open({str(called)!r}, 'w').write(' '.join(sys.argv[1:])); "
            f"sys.stdout.write({written!r}); sys.stderr.write({error!r}); sys.exit({code})"
        )
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy/audit.py"), sys.executable, str(program)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done, called.read_text()

    return run


def said(*packages):
    return json.dumps({"dependencies": packages, "fixes": []})


def test_every_package_was_checked(audit):
    """Without an advisory the exit code is 0, and the packages are counted; both lock files are read, with hashes."""
    done, called = audit(said(GOOD, GOOD))
    assert (done.returncode, done.stdout) == (0, "2 packages, no advisory\n")
    assert "--require-hashes" in called
    assert called.count("requirements.lock") == called.count("requirements-dev.lock") == 1


def test_an_advisory(audit):
    """Each advisory has a line that says which version mends it; the exit code is 1, whatever was skipped."""
    done, _ = audit(said(GOOD, BAD, UNKNOWN), code=1)
    assert done.returncode == 1
    assert done.stdout == "pip 1.0: PYSEC-1, mended in 1.1, 2.0\n"
    assert "1 advisories" in done.stderr


@pytest.mark.parametrize("written", ["", said(), '{"dependencies"'])
def test_a_source_that_cannot_be_reached(audit, written):
    """A traceback becomes a sentence that says that nothing was checked and what to do; exit code 3."""
    done, _ = audit(written, code=1, error="Traceback (most recent call last):\n  File\nConnectionError: no host\n")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("pip-audit can't reach its source (pypi), so nothing was checked; run it")
    assert line.endswith("ConnectionError: no host")


def test_a_mirror_without_advisories(audit):
    """A source that knows no package is no clean bill, though pip-audit says so: exit code 3."""
    done, _ = audit(said(UNKNOWN, UNKNOWN), code=0, error="No known vulnerabilities found")
    assert done.returncode == 3
    assert "knows none of the packages" in done.stderr
    assert "nothing was checked" in done.stderr


def test_some_packages_were_not_checked(audit):
    """What the source doesn't know is counted and named: exit code 3."""
    done, _ = audit(said(GOOD, UNKNOWN))
    assert (done.returncode, done.stderr) == (3, "1 of 2 packages were not checked: ours\n")


def test_everything_that_is_asked_for_is_locked_with_hashes():
    """Every package of pyproject.toml stands in the lock files with a hash, and no address of a registry does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {"requirements.lock": project["project"]["dependencies"]}
    wanted["requirements-dev.lock"] = [*wanted["requirements.lock"], *project["dependency-groups"]["dev"]]
    extras = project["project"]["optional-dependencies"]
    wanted["requirements-otel.lock"] = [*wanted["requirements.lock"], *extras["otel"]]
    wanted["requirements-dev.lock"] += [*extras["local"], *extras["otel"]]
    wanted["requirements-build.lock"] = project["dependency-groups"]["build"]
    for name, packages in wanted.items():
        text = (ROOT / "deploy" / name).read_text()
        blocks = [block for block in text.replace("\n    ", " ").splitlines() if block and not block.startswith("#")]
        assert all("==" in block and "--hash=sha256:" in block for block in blocks)
        locked = {block.split("==")[0].split("[")[0] for block in blocks}
        named = {each.split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip().lower() for each in packages}
        assert named <= locked
        assert "://" not in text
