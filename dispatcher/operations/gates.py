"""How much of what costs a lot is under way at once: so many of one workspace, and so many in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dispatcher.core.errors import TooManyRequestsError

WAIT_SECONDS = 5.0
"""So long one waits for its turn, where waiting is allowed."""


@dataclass(slots=True)
class _Place:
    """One workspace's part: who is in or waits, and the slots."""

    slots: asyncio.Semaphore
    present: int = 0


class Gate:
    """Lets so many in at once. Who waits for the process's slots waits with so few of its workspace that all get on.

    Args:
        what: What goes through, in the plural, for the words of a refusal.
        each: How many of one workspace.
        together: How many of all workspaces.
        waiting: How many more of one workspace wait for their turn; the next is refused.
        wait_seconds: How long they wait before they are refused.
    """

    def __init__(
        self, what: str, *, each: int, together: int, waiting: int = 0, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._what = what
        self._each = each
        self._waiting = waiting
        # Who may not wait is refused by the first turn of the loop, never held.
        self._seconds = wait_seconds if waiting else 0.0
        self._together = asyncio.Semaphore(together)
        self._places: dict[str, _Place] = {}

    @asynccontextmanager
    async def enter(self, workspace_id: str) -> AsyncIterator[None]:
        """Be in for the time of the `async with`.

        Raises:
            TooManyRequestsError: Too many of the workspace are in or wait, or the turn didn't come in time.
        """
        place = self._places.setdefault(workspace_id, _Place(asyncio.Semaphore(self._each)))
        if place.present >= self._each + self._waiting:
            raise self._refused("of this workspace ")
        place.present += 1
        try:
            await self._wait(place)
            try:
                yield
            finally:
                self._together.release()
                place.slots.release()
        finally:
            place.present -= 1
            if not place.present:
                del self._places[workspace_id]

    async def _wait(self, place: _Place) -> None:
        """Take a slot of the workspace and one of the process."""
        try:
            async with asyncio.timeout(self._seconds):
                await place.slots.acquire()
                try:
                    await self._together.acquire()
                except BaseException:
                    place.slots.release()
                    raise
        except TimeoutError:
            raise self._refused("") from None

    def _refused(self, whose: str) -> TooManyRequestsError:
        seconds = max(1, int(WAIT_SECONDS))
        return TooManyRequestsError(
            f"too many {self._what} {whose}are under way; send the request again in {seconds} s", seconds
        )


def make_gate_of_counts() -> Gate:
    """Make the gate of what goes through up to 100,000 dead letters in MongoDB at a time: counting, marking."""
    return Gate("counts or marks of dead letters", each=2, together=8, waiting=8)
