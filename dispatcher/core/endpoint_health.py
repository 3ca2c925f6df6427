"""Whether an endpoint has done nothing but fail for so long that its owner is told, or that it is disabled."""

from dataclasses import dataclass
from enum import StrEnum


class Due(StrEnum):
    """What is due about a failing endpoint."""

    NOTHING = "nothing"
    WARN = "warn"
    DISABLE = "disable"


class Trouble(StrEnum):
    """What is known of an endpoint: that it fails, or that it said it is gone and its webhook is being disabled."""

    FAILING = "failing"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class FailingEndpoint:
    """A webhook whose attempts failed since its last success. Times are unix milliseconds.

    Attributes:
        webhook_id: `wh_…`.
        workspace_id: The tenant.
        endpoint_revision: The webhook's, when it failed; with another one nothing of this counts.
        failing_since_ms: When the first of these attempts failed.
        last_failure_ms: When the latest did.
        warned: Whether the first half of the period was told of.
        trouble: Which of the two it is.
        key: What the store knows it by; empty: the webhook's id.
    """

    webhook_id: str
    workspace_id: str
    endpoint_revision: int
    failing_since_ms: int
    last_failure_ms: int
    warned: bool = False
    trouble: Trouble = Trouble.FAILING
    key: str = ""


@dataclass(slots=True)
class HealthNote:
    """What one worker saw of a webhook since it last wrote that down. Times are unix milliseconds.

    Attributes:
        webhook_id: `wh_…`.
        workspace_id: The tenant.
        endpoint_revision: The webhook's.
        succeeded_at_ms: When an attempt last succeeded; None where none did.
        first_failure_ms: When the first attempt after that failed; None where none did.
        last_failure_ms: When the latest failed.
    """

    webhook_id: str
    workspace_id: str
    endpoint_revision: int
    succeeded_at_ms: int | None = None
    first_failure_ms: int | None = None
    last_failure_ms: int = 0

    def failed(self, at_ms: int) -> None:
        """Add a failed attempt."""
        if self.first_failure_ms is None:
            self.first_failure_ms = at_ms
        self.last_failure_ms = max(self.last_failure_ms, at_ms)

    def succeeded(self, at_ms: int) -> None:
        """Add a success: what failed before counts no more."""
        self.succeeded_at_ms = at_ms
        self.first_failure_ms = None
        self.last_failure_ms = 0


def what_is_due(endpoint: FailingEndpoint, now_ms: int, period_ms: int) -> Due:
    """Say what is due about a failing endpoint.

    Only failures that were seen count: an endpoint that failed once and was sent nothing since is neither told of nor
    disabled, however long ago that was.

    Args:
        endpoint: What is known of it.
        now_ms: Unix milliseconds; failures later than that (of a worker whose clock is ahead) count as of now.
        period_ms: How long it may fail.
    """
    failed_for_ms = min(endpoint.last_failure_ms, now_ms) - endpoint.failing_since_ms
    if failed_for_ms >= period_ms:
        return Due.DISABLE
    if not endpoint.warned and failed_for_ms >= period_ms / 2:
        return Due.WARN
    return Due.NOTHING
