"""A delivery's way through the tiers: what was tried, what it waits for, what would come then."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from dispatcher.core.delivery_log import TERMINAL, LoggedAttempt, LoggedDelivery
from dispatcher.core.model import RetryTier
from dispatcher.core.retry import waited_in

MAX_PLANNED = 6
"""As many steps that may never come are shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a timeline.

    Attributes:
        kind: `run` (a heading), `attempt`, `next` (due), `planned` or `waiting`.
        number: Of the attempt; 0 where it is none.
        run: The replay it belongs to; empty for the first way through.
        attempt: What was tried; None where nothing was yet.
        tier: The tier that the delivery waited in before, or waits in; empty where it didn't.
        waited_ms: How long it waited before; None where it didn't, or still does.
        due_ms: When the next attempt is due; None where that isn't settled.
    """

    kind: str
    number: int = 0
    run: str = ""
    attempt: LoggedAttempt | None = None
    tier: str = ""
    waited_ms: int | None = None
    due_ms: int | None = None


def steps_of(delivery: LoggedDelivery, tiers: Sequence[RetryTier], max_attempts: int) -> list[Step]:
    """Return a delivery's timeline.

    Args:
        delivery: With its attempts.
        tiers: The schedule, shortest first.
        max_attempts: Of the webhook as it is today.
    """
    ordered = sorted(delivery.attempts, key=lambda made: (made.run, made.attempt))
    runs = {run: list(made) for run, made in groupby(ordered, key=lambda made: made.run)}
    runs.setdefault(delivery.run, [])
    steps: list[Step] = []
    for run in sorted(runs):
        if len(runs) > 1:
            steps.append(Step("run", run=run))
        steps += _made(runs[run], tiers)
    if delivery.status in TERMINAL or delivery.test:
        return steps
    made = delivery.attempts_made
    if delivery.next_attempt_at_ms is None:
        return [*steps, Step("waiting", made + 1, delivery.run)]
    waits_ms = delivery.next_attempt_at_ms - delivery.updated_at_ms
    tier = waited_in(waits_ms, made, tiers).name
    steps.append(Step("next", made + 1, delivery.run, tier=tier, due_ms=delivery.next_attempt_at_ms))
    planned = range(made + 2, min(max_attempts, made + 1 + MAX_PLANNED) + 1)
    return steps + [Step("planned", number, tier=waited_in(0, number - 1, tiers).name) for number in planned]


def _made(attempts: Sequence[LoggedAttempt], tiers: Sequence[RetryTier]) -> list[Step]:
    steps = []
    before: LoggedAttempt | None = None
    for each in attempts:
        if before is None:
            steps.append(Step("attempt", each.attempt, each.run, each))
        else:
            waited_ms = max(0, round(each.at_ms - each.duration_ms) - before.at_ms)
            tier = waited_in(waited_ms, before.attempt, tiers).name
            steps.append(Step("attempt", each.attempt, each.run, each, tier=tier, waited_ms=waited_ms))
        before = each
    return steps
