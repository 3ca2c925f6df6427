"""Requests that came more than once, and what explains each. No input or output."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.faults.soak.facts import Facts, Record, Request, Step

ACKNOWLEDGED_SECONDS = 2.0
"""Kafka's answer may take so long; what comes in between may lose it, and what was produced is produced again."""


UNCHECKED_SECONDS = 15.0
"""A worker says at most every 10 s that it sends without asking the log; what it sends then waits for its turn."""


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
    for each in facts.disruptions:
        if each.excuses and each.began_at - ACKNOWLEDGED_SECONDS <= at <= each.ended_at:
            return each.name
    return ""


class Explanations:
    """What explains that a request came again.

    Its own step was under way, or not in the log yet, at a disruption; an earlier one of its delivery was, so that its
    chain of retries forked; the chain forked because nobody learnt that a record was produced; the delivery was handed
    over before its answer came; the log gave no answer when it was asked; or its event stands on its topic twice.

    Args:
        facts: All that is known.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._handed_over = {each.step for each in facts.records if each.reason == "handed_over"}
        self._forks = _forks(facts)
        self._records: dict[str, list[Record]] = defaultdict(list)
        for record in facts.records:
            self._records[record.step[0]].append(record)

    def of(self, request: Request) -> str:
        """Say what explains a repeated request; empty where nothing does."""
        own = (request.delivery_id, request.attempt)
        steps = [(request.delivery_id, step) for step in range(1, request.attempt + 1)]
        past = [each for each in reversed(self._facts.disruptions) if each.excuses and each.began_at <= request.at]
        for disruption in past:
            if own in disruption.unsettled:
                return f"under way or not logged at: {disruption.name}"
        for disruption in past:
            if not disruption.unsettled.isdisjoint(steps):
                return f"forked chain after: {disruption.name}"
        if fork := self._fork(request):
            return f"forked chain after: {fork}"
        if not self._handed_over.isdisjoint(steps):
            return "handed over before the answer came"
        if any(at <= request.at <= at + UNCHECKED_SECONDS for at in self._facts.unchecked):
            return "the delivery log didn't say in time what was sent"
        event_id, _ = self._facts.pairs.get(request.delivery_id, ("", ""))
        return "published twice" if self._facts.placed.get(event_id, 0) > 1 else ""

    def _fork(self, request: Request) -> str:
        """Name the disruption that may have hidden that this step, or a later one, was asked for already.

        What it then hid is a record: a second one for the same step, one for a later step, or one that stands for no
        attempt, to which the delivery was moved. The record that it was made of is read again.
        """
        for step in range(1, request.attempt + 1):
            if fork := self._forks.get((request.delivery_id, step)):
                return fork
        hidden = (
            in_doubt(self._facts, each.at)
            for each in self._records.get(request.delivery_id, ())
            if each.at < request.at and (each.reason or each.step[1] > request.attempt)
        )
        return next(filter(None, hidden), "")


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
