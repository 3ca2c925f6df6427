"""Make a copy of the dispatcher in which the modules on a delivery's way are compiled.

    python deploy/compile.py build/compiled

needs a C compiler and takes about a minute. The copy behaves as the source does, with less CPU; what isn't compiled
there is plain Python as ever. Source: mypyc, https://mypyc.readthedocs.io/.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = (
    *("core/" + name for name in (
        "breaker", "decoding", "delivery_id", "delivery_log", "endpoint_health", "errors", "exchange",
        "in_flight_limit", "json_form", "masking", "matching", "model", "offsets", "outcome", "payload",
        "records", "rendering", "retry", "sealing", "signing", "token_bucket", "topics", "urls",
    )),
    *("pipeline/" + name for name in (
        "attempts", "endpoint_health", "expansions", "intake", "lane", "lane_clock", "lanes", "log_buffer", "role",
        "settlement", "shares", "work", "work_time",
    )),
    "metrics", "mongo/delivery_encoding",
)  # fmt: skip
SOURCES = ("dispatcher", "schemas", "pyproject.toml")
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

sys.argv[1:], modules = ["-q", "build_ext", "--inplace"], sys.argv[1:]
setup(name="dispatcher", packages=["dispatcher"], ext_modules=mypycify(["--strict", *modules], opt_level="3"))
"""


def refusal(target: Path) -> str:
    """Say why no copy may be made in a folder, whose content would be removed; empty where one may.

    Args:
        target: The folder, resolved.
    """
    if any(source.is_relative_to(target) or target.is_relative_to(source) for source in map(ROOT.joinpath, SOURCES)):
        return f"{target} is, holds or is part of the source, which would be removed: name a folder of its own"
    earlier = (target / "dispatcher" / "_schemas").is_dir()
    if target.exists() and not earlier and not (target.is_dir() and not any(target.iterdir())):
        return f"{target} holds something else than an earlier copy: remove it yourself, or name another folder"
    return ""


def main(target: Path) -> int:
    """Make the copy; return the exit code."""
    if problem := refusal(target):
        print(f"{problem}, such as build/compiled", file=sys.stderr)
        return 1
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        print("no C compiler is found: on Debian and Ubuntu, apt-get install gcc python3-dev", file=sys.stderr)
        return 1
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "dispatcher", target / "dispatcher", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "schemas", target / "dispatcher" / "_schemas")
    shutil.copy(ROOT / "pyproject.toml", target)
    modules = [f"dispatcher/{name}.py" for name in MODULES]
    done = subprocess.run([sys.executable, "-c", _SETUP, *modules], cwd=target, check=False)  # noqa: S603 - own words
    shutil.rmtree(target / "build", ignore_errors=True)
    (target / "pyproject.toml").unlink()
    if not done.returncode:
        print(f"compiled: PYTHONPATH={target} dispatcher worker")
    return done.returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile the modules on a delivery's way.")
    parser.add_argument("target", type=Path, help="folder for the copy; an earlier copy there is removed")
    sys.exit(main(parser.parse_args().target.resolve()))
