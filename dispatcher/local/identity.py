"""Which process is meant: a process id alone is used again, so it is kept with its start time."""

import contextlib
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_PROC = Path("/proc")
_STATE_FIELD = 0  # of the fields behind the command's name
_THREADS_FIELD = 17
_START_FIELD = 19


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, told apart from any later one with the same id.

    Attributes:
        pid: The process id.
        start_ticks: When it started, in clock ticks since the machine's boot.
        boot_id: The kernel's name for that boot.
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Say who has this process id now.

        Returns:
            The identity; None where nobody lives there. A process that only waits to be reaped is dead, but not
            before its last thread is: until then its ports and files are in use.
        """
        fields = _stat(pid)
        if fields is None or (fields[_STATE_FIELD] in {"Z", "X"} and int(fields[_THREADS_FIELD]) <= 1):
            return None
        return cls(pid=pid, start_ticks=int(fields[_START_FIELD]), boot_id=_boot_id())

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """Read what `to_json` wrote; None for anything else."""
        try:
            return cls(pid=int(value["pid"]), start_ticks=int(value["start_ticks"]), boot_id=str(value["boot_id"]))
        except (TypeError, KeyError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Give the attributes as a JSON object."""
        return asdict(self)

    def is_alive(self) -> bool:
        """Say whether this very process still runs."""
        return type(self).of(self.pid) == self

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal to this very process; nothing happens where it has ended."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def end(self, *, patience_seconds: float) -> None:
        """Make a process that isn't our child end, and return when it has.

        Args:
            patience_seconds: How long it may take over SIGTERM before SIGKILL follows.

        Raises:
            PermissionError: it belongs to another user.
        """
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a paused process would take no notice
        deadline = time.monotonic() + patience_seconds
        killed = False
        while self.is_alive():
            if not killed and time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                killed = True
            time.sleep(0.02)


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold spaces and parentheses
    return fields if len(fields) > _START_FIELD else None


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
