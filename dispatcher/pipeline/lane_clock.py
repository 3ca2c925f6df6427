"""The clock that lanes measure endpoints with: it stands still while this process does.

A process that was stopped for two seconds (its own work, a busy machine) would find every endpoint slow by the
wall clock, and move healthy traffic elsewhere.
"""

import asyncio
from collections.abc import Callable

TICK_SECONDS = 0.025
_MAX_STEP_SECONDS = 2 * TICK_SECONDS


class LaneClock:
    """Seconds during which the event loop was turning, to the nearest tick.

    Args:
        ticked: Called at each tick.

    Attributes:
        now: The time; read often, so a plain attribute.
    """

    def __init__(self, ticked: Callable[[], None]) -> None:
        self._ticked = ticked
        self.now = 0.0
        self._loop = asyncio.get_running_loop()
        self._ticked_at = self._loop.time()
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        """Stop ticking."""
        self._timer.cancel()

    def _tick(self) -> None:
        at = self._loop.time()
        self.now += min(at - self._ticked_at, _MAX_STEP_SECONDS)
        self._ticked_at = at
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._ticked()
