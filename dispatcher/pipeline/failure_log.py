"""The process log's lines about attempts that failed: one each at most, with a bound for every webhook.

A broken endpoint that gets thousands of requests a second must neither fill the disk nor hide the lines about others.
What was left out is counted, and the next line about the same webhook says how many those were. Lines have no secrets:
no URL, no header, nothing of a request or of an answer but its status code. The delivery log has all attempts.
"""

from collections import OrderedDict

import structlog

from dispatcher.core.decoding import rfc3339
from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.masking import legible, masked

log = structlog.get_logger(__name__)

WINDOW_MS = 10_000
LINES_A_WEBHOOK = 3
"""Lines about one webhook within `WINDOW_MS`."""

LINES_A_SECOND = 100
"""Lines of the whole process within a second: reached only where more than 300 webhooks fail all along."""

MAX_WEBHOOKS = 10_000
"""Webhooks that are remembered; the one whose window began the longest ago is forgotten first."""


class FailureLog:
    """Tells of failed attempts, as far as the bounds allow.

    Attributes:
        left_out: Lines that were left out, of all webhooks together.
    """

    __slots__ = ("_second", "_seen", "_shown_in_second", "left_out")

    def __init__(self) -> None:
        # By webhook: when its window began, how many lines it had in it, and how many were left out since the last.
        self._seen: OrderedDict[str, list[int]] = OrderedDict()
        self._second = 0
        self._shown_in_second = 0
        self.left_out = 0

    def failed(self, entry: LogEntry, tier: str = "") -> None:
        """Tell of a step that failed, unless that is one line too many.

        Args:
            entry: The step as the delivery log gets it; its status says whether another one follows.
            tier: Where the delivery waits for the next attempt; empty where there is none.
        """
        left_out = self._take(entry.subscription_id, entry.at_ms)
        if left_out < 0:
            return
        about: dict[str, object] = {
            "delivery_id": entry.delivery_id,
            "event_id": legible(entry.event_id),
            "webhook_id": entry.subscription_id,
            "workspace_id": entry.workspace_id,
        }
        if entry.attempt:
            about["attempt"] = entry.attempt
        if entry.response_code:
            about["status"] = entry.response_code
        else:
            about["error"] = legible(masked(entry.error))
        if entry.status is DeliveryStatus.FAILED:
            about["next"] = "dead_letter"
            about["reason"] = entry.reason
        else:
            about["next"] = f"retry.{tier}"
            about["due_at"] = rfc3339(entry.next_attempt_at_ms or entry.at_ms)
        if entry.run:
            about["replay_id"] = entry.run
        if left_out:
            about["left_out"] = left_out
        # Not a warning: an endpoint that fails is its owner's business, and equal warnings are shown as one.
        log.info("attempt failed" if entry.attempt else "delivery failed, nothing sent", **about)

    def _take(self, webhook_id: str, now_ms: int) -> int:
        """Return how many lines about a webhook were left out before this one; -1 where this is to be left out too."""
        seen = self._seen.get(webhook_id)
        if seen is None:
            seen = self._seen[webhook_id] = [now_ms, 0, 0]
            if len(self._seen) > MAX_WEBHOOKS:
                self._seen.popitem(last=False)
        elif not 0 <= now_ms - seen[0] < WINDOW_MS:  # also where the clock was set back
            seen[0], seen[1] = now_ms, 0
            self._seen.move_to_end(webhook_id)
        if seen[1] >= LINES_A_WEBHOOK or not self._has_room(now_ms):
            seen[2] += 1
            self.left_out += 1
            return -1
        left_out = seen[2]
        seen[1] += 1
        seen[2] = 0
        return left_out

    def _has_room(self, now_ms: int) -> bool:
        second = now_ms // 1000
        if second != self._second:
            self._second, self._shown_in_second = second, 0
        if self._shown_in_second >= LINES_A_SECOND:
            return False
        self._shown_in_second += 1
        return True
