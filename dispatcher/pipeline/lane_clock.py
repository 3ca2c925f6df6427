"""The clock that lanes measure endpoints with: it stands still while this process does.

A process that was stopped for two seconds (its own work, a busy machine) would find every endpoint slow by the
wall clock, and move healthy traffic elsewhere.
"""

import asyncio
from collections.abc import Callable

from dispatcher.pipeline.work_time import WorkTime

TICK_SECONDS = 0.025
BUSY = 0.8
"""The process is what is slow while its loop has work for this part of the time."""

_MAX_STEP_SECONDS = 2 * TICK_SECONDS
_SMOOTHING = 0.2


class LaneClock:
    """Seconds during which the event loop was turning, to the nearest tick.

    Args:
        ticked: Called at each tick.

    Attributes:
        now: The time; read often, so a plain attribute.
        is_busy: True while this process, not an endpoint, is what makes deliveries wait.
    """

    def __init__(self, ticked: Callable[[], None]) -> None:
        self._ticked = ticked
        self.now = 0.0
        self.is_busy = False
        self._load = 0.0
        self._work = WorkTime()
        self._worked = self._work.seconds()
        self._loop = asyncio.get_running_loop()
        self._ticked_at = self._loop.time()
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        """Stop ticking."""
        self._timer.cancel()
        self._work.close()

    def _tick(self) -> None:
        at, worked = self._loop.time(), self._work.seconds()
        step = at - self._ticked_at
        self.now += min(step, _MAX_STEP_SECONDS)
        self._load += (min(1.0, (worked - self._worked) / step) - self._load) * _SMOOTHING
        self.is_busy = self._load > BUSY
        self._ticked_at, self._worked = at, worked
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._ticked()
