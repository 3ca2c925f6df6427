"""How long this thread worked, or would have if a processor had been free.

A thread that has work all the time may get half of a processor on a busy machine: by its own CPU time it would seem
to rest. Linux counts the time that it was ready and waited as well.

Source: Linux, Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
"""

import contextlib
import os
import time

_NANOSECONDS = 1e-9


class WorkTime:
    """The work of the thread that makes it; without Linux's count, its CPU time."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def seconds(self) -> float:
        """Return the work so far."""
        if self._file is None:
            return time.thread_time()
        ran, waited, _ = os.pread(self._file, 100, 0).split()
        return (int(ran) + int(waited)) * _NANOSECONDS

    def close(self) -> None:
        """End counting."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
