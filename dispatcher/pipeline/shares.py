"""What slow lanes, and the lanes of one workspace, may have of the slots while others have work.

A lane that is known to be fast gives its slots back at once and is never asked. One from which nothing came yet is
asked like a long one: an event that goes to thousands of endpoints that hang finds thousands of such lanes.
"""

from dispatcher.pipeline.lane import Lane, Workspace
from dispatcher.pipeline.work import Window

SLOW_SHARE = 1 / 2
"""What slow lanes together may take of the slots, and of the payload window, while others have work."""

WORKSPACE_SHARE = 1 / 4
"""What one workspace's lanes may take of the slots, those known to be fast aside, while another has work."""

WORKSPACE_MOST = 3 / 4
"""What they may take while another workspace has none, but had some a short while ago: it finds room when it has."""

LONG_SECONDS = 0.25
"""Endpoints that answer sooner are fast."""

RECENT_SECONDS = 1.0
"""Who was offered a delivery within this time has work."""


class Shares:
    """Who holds how much, and who has work.

    Args:
        slots: Of the process.
        window: The payload bytes held.

    Attributes:
        slow_in_flight: Requests under way in slow lanes.
        slow_bytes: Payload bytes that slow lanes hold, an event's for each of its deliveries.
        workspaces: Those that have lanes, which are remembered for a while after their last delivery.
    """

    __slots__ = (
        "_half",
        "_healthy_at",
        "_latest",
        "_latest_at",
        "_most",
        "_other_at",
        "_quarter",
        "_window",
        "slow_bytes",
        "slow_in_flight",
        "workspaces",
    )

    def __init__(self, slots: int, window: Window) -> None:
        self._half = slots * SLOW_SHARE
        self._quarter = slots * WORKSPACE_SHARE
        self._most = slots * WORKSPACE_MOST
        self._window = window
        self._healthy_at = -RECENT_SECONDS
        self._latest: Workspace | None = None
        self._latest_at = -RECENT_SECONDS
        self._other_at = -RECENT_SECONDS
        self.slow_in_flight = 0
        self.slow_bytes = 0
        self.workspaces: dict[str, Workspace] = {}

    @property
    def hanging(self) -> int:
        """Slots of slow lanes that the process makes up for: others may go beyond its bound by so many."""
        return min(self.slow_in_flight, int(self._half))

    def note(self, workspace: Workspace, now: float, *, healthy: bool) -> None:
        """Note who has work, so that shares are asked for only while others have."""
        if healthy:
            self._healthy_at = now
        if workspace is not self._latest:
            self._other_at = self._latest_at
            self._latest = workspace
        self._latest_at = now

    def is_over(self, lane: Lane, now: float) -> bool:
        """Say whether a lane that isn't known to be fast has its share already, or its workspace has."""
        # An event counts once for each delivery in `slow_bytes`, and once in the window.
        slow_have_half = self.slow_in_flight >= self._half or (
            min(self.slow_bytes, self._window.held_bytes) >= self._window.limit_bytes * SLOW_SHARE
        )
        slow_are_over = slow_have_half and now - self._healthy_at < RECENT_SECONDS
        if lane.is_slow and slow_are_over:
            return True
        held = lane.workspace.long_in_flight
        if held < self._quarter:
            return False
        return slow_are_over or self.others_have_work(lane, now) or (held >= self._most and len(self.workspaces) > 1)

    def others_have_work(self, lane: Lane, now: float) -> bool:
        """Say whether another workspace than a lane's was offered a delivery a moment ago."""
        others_at = self._other_at if self._latest is lane.workspace else self._latest_at
        return now - others_at < RECENT_SECONDS

    def mark_slow(self, lane: Lane, *, slow: bool) -> None:
        """Take note that a lane became slow, or is it no more."""
        if slow is not lane.is_slow:
            lane.is_slow = slow
            sign = 1 if slow else -1
            self.slow_in_flight += sign * lane.in_flight
            self.slow_bytes += sign * lane.held_bytes
        if slow:
            self.mark_fast(lane, fast=False)

    @staticmethod
    def mark_fast(lane: Lane, *, fast: bool) -> None:
        """Take note that a lane is known to be fast, or is it no more."""
        if fast is not lane.is_fast:
            lane.is_fast = fast
            lane.workspace.long_in_flight += -lane.in_flight if fast else lane.in_flight
