"""A disk of a few hundred megabytes, which a test may fill to the last byte."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_CHUNK = bytes(1024 * 1024)
_BALLAST = "ballast"


class NotPermittedError(Exception):
    """This machine lets nobody mount a disk here; the text is one sentence."""


class SmallDisk:
    """A mounted file system in memory.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Write until there is no room for another byte; may be called again where some came free."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            size = len(_CHUNK)
            while size:
                # What doesn't fit wholly is written in part, or refused.
                try:
                    ballast.write(_CHUNK[:size])
                except OSError:
                    size //= 2

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)

    @property
    def free_bytes(self) -> int:
        """How much room there is."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@asynccontextmanager
async def mounted(folder: Path, megabytes: int) -> AsyncIterator[SmallDisk]:
    """Mount a disk for the time of the `async with`.

    Raises:
        NotPermittedError: The machine doesn't allow it.
    """
    folder.mkdir(parents=True)  # noqa: ASYNC240 - asks a disk for a moment
    try:
        await asyncio.to_thread(_run, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotPermittedError(f"mounting a small disk is not permitted here ({error})") from error
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: whoever still holds a file there keeps nobody waiting.
        await asyncio.to_thread(_run, "umount", "-l", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
