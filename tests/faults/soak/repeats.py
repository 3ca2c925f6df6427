"""Requests that came more than once, and what explains each. No input or output."""

from collections.abc import Iterable, Iterator

from tests.faults.soak.facts import Facts, Request, Step

ACKNOWLEDGED_SECONDS = 2.0
"""Kafka's answer may take so long; what comes in between may lose it, and what was produced is produced again."""


def repeated(requests: Iterable[Request]) -> Iterator[Request]:
    """Give the requests of one delivery that repeat a step, or come after it was accepted."""
    seen: set[int] = set()
    accepted_at = float("inf")
    for request in sorted(requests, key=lambda each: each.at):
        if request.attempt in seen or request.at > accepted_at:
            yield request
        seen.add(request.attempt)
        if request.accepted and request.answered is not None:
            accepted_at = min(accepted_at, request.answered[1])


def in_doubt(facts: Facts, at: float) -> str:
    """Name the disruption that may have hidden that something was produced then; empty where there was none."""
    disturbed = (each.name for each in facts.disruptions if each.began_at - ACKNOWLEDGED_SECONDS <= at <= each.ended_at)
    return next(disturbed, "")


class Explanations:
    """What explains that a request came again.

    Its own step was under way, or not in the log yet, at a disruption; an earlier one of its delivery was, so that its
    chain of retries forked; the chain forked because nobody learnt that a record was produced; the delivery was handed
    over before its answer came; or its event stands on the source topic twice.

    Args:
        facts: All that is known.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._handed_over = {each.step for each in facts.records if each.reason == "handed_over"}
        self._forks = _forks(facts)

    def of(self, request: Request) -> str:
        """Say what explains a repeated request; empty where nothing does."""
        own = (request.delivery_id, request.attempt)
        steps = [(request.delivery_id, step) for step in range(1, request.attempt + 1)]
        past = [each for each in self._facts.disruptions if each.began_at <= request.at]
        for disruption in past:
            if own in disruption.unsettled:
                return f"under way or not logged at: {disruption.name}"
        for disruption in past:
            if not disruption.unsettled.isdisjoint(steps):
                return f"forked chain after: {disruption.name}"
        for step in steps:
            if step in self._forks:
                return f"forked chain after: {self._forks[step]}"
        if not self._handed_over.isdisjoint(steps):
            return "handed over before the answer came"
        event_id, _ = self._facts.pairs.get(request.delivery_id, ("", ""))
        return "published twice" if self._facts.placed.get(event_id, 0) > 1 else ""


def _forks(facts: Facts) -> dict[Step, str]:
    """Find steps that stand in two records, the first of which was produced when nobody may have learnt of it."""
    first: dict[tuple[Step, str], float] = {}
    forks: dict[Step, str] = {}
    for record in sorted(facts.records, key=lambda each: each.at):
        known = (record.step, record.reason)
        if known in first and (disturbance := in_doubt(facts, first[known])):
            forks.setdefault(record.step, disturbance)
        first.setdefault(known, record.at)
    return forks
