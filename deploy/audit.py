"""Look the locked packages up in the advisories, with pip-audit; `make audit` calls it.

pip-audit ends with exit code 0 where its source knows none of the packages, as a mirror does that has no advisories. So
what wasn't checked is counted here, and is a failure of its own.

Exit codes: 0 every package was checked and none has an advisory, 1 some have, 3 not every package could be checked.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOCKS = ("requirements.lock", "requirements-dev.lock")
SOURCE = os.environ.get("AUDIT_SOURCE", "pypi")
VULNERABLE, UNCHECKED = 1, 3
_MANY = 5
_NOTHING = "so nothing was checked; run it where the source can be reached, or with AUDIT_SOURCE=pypi or osv"


def main(program: Sequence[str]) -> int:
    """Audit the lock files beside this file.

    Args:
        program: The pip-audit to call.
    """
    folder = Path(__file__).parent
    locks = [option for name in LOCKS for option in ("-r", str(folder / name))]
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json", f"-s{SOURCE}"]
    done = subprocess.run([*program, *options, *locks], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    packages = _packages(done.stdout)
    if packages is None:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return _tell(UNCHECKED, f"pip-audit can't reach its source ({SOURCE}), {_NOTHING}: {last}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return _tell(UNCHECKED, f"pip-audit's source ({SOURCE}) knows none of the packages, {_NOTHING}")
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", ())]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {mended}")
    if found:
        return _tell(VULNERABLE, f"{len(found)} advisories: raise what pyproject.toml asks for, or `make lock`")
    if skipped:
        named = ", ".join(skipped[:_MANY]) + (" …" if len(skipped) > _MANY else "")
        return _tell(UNCHECKED, f"{len(skipped)} of {len(packages)} packages were not checked: {named}")
    print(f"{len(packages)} packages, no advisory")
    return 0


def _packages(written: str) -> list[dict[str, Any]] | None:
    try:
        packages = json.loads(written)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    return packages or None


def _tell(code: int, sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [str(Path(sys.executable).with_name("pip-audit"))]))
