"""Says of a run's facts what became of each pair of event and webhook, and what may not be. No input or output."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from tests.faults.soak.facts import Endpoint, Facts, Letter, Logged, Record, Request
from tests.faults.soak.repeats import Explanations, in_doubt, repeated

CIRCUIT_FAILURES = 20
"""So many requests must have failed before a circuit may be open."""
SHOWN = 10


@dataclass(slots=True)
class Verdict:
    """What became of everything.

    Attributes:
        events: Published and found on the source topic.
        pairs: Of event and webhook that must be delivered.
        requests: That the endpoints saw.
        delivered: Pairs that were answered 2xx.
        waiting: Pairs that wait in the source, overflow or a delay topic.
        dead_lettered: Pairs by the reason of their dead letter.
        withdrawn: Pairs of an endpoint that said 410 to another one before.
        explained: Repeated requests, by what explains them.
        second_letters: Dead letters whose delivery has a later one, by the disruption that explains it.
        unexplained: Repeated requests that nothing explains.
        lost: What is nowhere: neither delivered, nor waiting, nor dead-lettered.
        wrong: What arrived, or was written, and matches nothing.
        wrong_ends: Pairs that ended in a way they may not, or for a reason that the requests don't bear out.
        passed: Records that are committed though what they ask for was never done.
        disagreements: Where the delivery log tells another story than the endpoints.
    """

    events: int = 0
    pairs: int = 0
    requests: int = 0
    delivered: int = 0
    waiting: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)
    withdrawn: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    second_letters: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)

    @property
    def problems(self) -> Mapping[str, list[str]]:
        """What may not be, by kind; repeated requests are not among it, since delivery is at least once."""
        kinds = {
            "lost": self.lost,
            "wrong": self.wrong,
            "wrong end": self.wrong_ends,
            "committed and unfinished": self.passed,
            "log disagrees": self.disagreements,
        }
        return {kind: found for kind, found in kinds.items() if found}

    def __str__(self) -> str:
        letters = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dead_lettered.items())) or "0"
        repeated = "; ".join(f"{count} {why}" for why, count in sorted(self.explained.items())) or "none"
        letters_again = "; ".join(f"{count} at: {why}" for why, count in sorted(self.second_letters.items())) or "none"
        lines = [
            f"{self.events} events, {self.pairs} pairs, {self.requests} requests",
            f"delivered {self.delivered}, waiting {self.waiting}, dead-lettered {letters}, withdrawn {self.withdrawn}",
            f"lost {len(self.lost)}, wrong {len(self.wrong)}, wrong end {len(self.wrong_ends)}",
            f"committed and unfinished {len(self.passed)}, log disagrees {len(self.disagreements)}",
            f"repeated requests, explained: {repeated}",
            f"repeated dead letters, explained: {letters_again}",
            f"repeated requests, unexplained: {len(self.unexplained)}",
        ]
        for kind, found in {**self.problems, "unexplained": self.unexplained}.items():
            lines += [f"  {kind}: {each}" for each in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"  {kind}: … {len(found)} in all")
        return "\n".join(lines)


def judge(facts: Facts) -> Verdict:
    """Compare what was published with what became of it.

    The log is looked at only where it was read: then everything must have ended.
    """
    return _Judgement(facts).verdict


class _Judgement:
    """One comparison: the facts by delivery, and the verdict as it grows."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.verdict = Verdict(len(facts.placed), requests=len(facts.requests))
        self.requests: dict[str, list[Request]] = defaultdict(list)
        for request in facts.requests:
            self.requests[request.delivery_id].append(request)
        self.records: dict[str, list[Record]] = defaultdict(list)
        for record in facts.records:
            self.records[record.step[0]].append(record)
        self.accepted = {each.delivery_id for each in facts.requests if each.accepted}
        self.letters: dict[str, list[Letter]] = defaultdict(list)
        for letter in facts.letters:
            self.letters[letter.delivery_id].append(letter)
        self.waiting = {each.step for each in facts.records if not self._is_committed(each)}
        self.waiting_deliveries = {delivery for delivery, _ in self.waiting}
        self.taken_up = {
            event_id
            for (partition, offset), event_id in facts.places.items()
            if offset < facts.committed.get(("source", partition), 0)
        }
        self.unsettled = {step for each in facts.disruptions for step in each.unsettled}
        self.failures = Counter(each.path for each in facts.requests if not each.accepted)
        self.gone_paths = {each.path for each in facts.requests if each.status == 410}
        self._look_at_arrivals()
        self._look_at_pairs()
        self._look_at_commits()
        self._look_at_repeats()
        if facts.log is not None:
            self._look_at_log(facts.log)

    def _is_committed(self, record: Record) -> bool:
        return record.offset < self.facts.committed.get((record.role, record.partition), 0)

    def _named(self, delivery_id: str) -> str:
        event_id, path = self.facts.pairs.get(delivery_id, ("an unknown pair", "?"))
        return f"{delivery_id} ({event_id} to {path})"

    def _history(self, delivery_id: str) -> str:
        """Tell what is known of a delivery, with times in seconds since the first disruption began."""
        zero = self.facts.disruptions[0].began_at if self.facts.disruptions else 0.0
        requests, records = self.requests.get(delivery_id, ()), self.records.get(delivery_id, ())
        known = [(each.at, f"attempt {each.attempt} answered {each.status}") for each in requests]
        known += [(each.at, f"{each.role} asks for {each.step[1]} {each.reason}".rstrip()) for each in records]
        return "; ".join(f"{at - zero:.2f} s {what}" for at, what in sorted(known)) or "nothing"

    def _endpoint(self, delivery_id: str) -> Endpoint:
        return self.facts.endpoints[self.facts.pairs[delivery_id][1]]

    # --- what nobody asked for

    def _look_at_arrivals(self) -> None:
        pairs, wrong = self.facts.pairs, self.verdict.wrong
        for each in self.facts.requests:
            if pairs.get(each.delivery_id) != (each.event_id, each.path):
                wrong.append(f"{each.event_id} arrived at {each.path} as {each.delivery_id}, attempt {each.attempt}")
        known = (*self.records, *self.letters, *(self.facts.log or ()))
        wrong += [
            f"Kafka or the log has {each or 'a source record'}" for each in dict.fromkeys(known) if each not in pairs
        ]

    # --- what became of each pair

    def _look_at_pairs(self) -> None:
        for event_id in self.facts.acknowledged - self.facts.placed.keys():
            self.verdict.lost.append(f"{event_id} was acknowledged and is not on the source topic")
        for delivery_id, (event_id, _) in self.facts.pairs.items():
            if event_id not in self.facts.placed:
                continue
            self.verdict.pairs += 1
            endpoint = self._endpoint(delivery_id)
            if letters := self.letters.get(delivery_id):
                self._look_at_letters(delivery_id, endpoint, letters)
            elif delivery_id in self.accepted:
                self.verdict.delivered += 1
                if "delivered" not in endpoint.ends:
                    self.verdict.wrong_ends.append(f"{self._named(delivery_id)} was answered 2xx")
            elif delivery_id in self.waiting_deliveries or event_id not in self.taken_up:
                self.verdict.waiting += 1
            elif self._is_withdrawn(delivery_id):
                self.verdict.withdrawn += 1
            else:
                self.verdict.lost.append(f"{self._named(delivery_id)}: {self._history(delivery_id)}")

    def _look_at_letters(self, delivery_id: str, endpoint: Endpoint, letters: list[Letter]) -> None:
        reasons = {each.reason for each in letters}
        self.verdict.dead_lettered[letters[0].reason] += 1
        if delivery_id in self.accepted and not self._was_unsettled(delivery_id):
            self.verdict.wrong_ends.append(f"{self._named(delivery_id)} was answered 2xx and has a dead letter")
        for first, _ in pairwise(sorted(letters, key=lambda each: each.at)):
            if disturbance := in_doubt(self.facts, first.at):
                self.verdict.second_letters[disturbance] += 1
            else:
                self.verdict.wrong_ends.append(f"{self._named(delivery_id)} has {len(letters)} dead letters")
        for reason in reasons:
            if reason not in endpoint.ends or not self._bears_out(reason, delivery_id, endpoint):
                self.verdict.wrong_ends.append(f"{self._named(delivery_id)} has a dead letter with reason {reason}")

    def _bears_out(self, reason: str, delivery_id: str, endpoint: Endpoint) -> bool:
        """Whether what the endpoint saw is a reason for this one."""
        requests = self.requests.get(delivery_id, ())
        match reason:
            case "attempts_exhausted":
                return any(each.attempt >= endpoint.max_attempts and not each.accepted for each in requests)
            case "gone":
                return any(each.status == 410 for each in requests)
            case "circuit_open":
                return self.failures[endpoint.path] >= CIRCUIT_FAILURES
        return False

    def _is_withdrawn(self, delivery_id: str) -> bool:
        """Whether its endpoint was gone before its turn; one that was told so itself must have a letter."""
        endpoint = self._endpoint(delivery_id)
        if "gone" not in endpoint.ends or endpoint.path not in self.gone_paths:
            return False
        told = any(each.status == 410 for each in self.requests.get(delivery_id, ()))
        return not told or self._was_unsettled(delivery_id)

    def _was_unsettled(self, delivery_id: str) -> bool:
        steps = {each.attempt for each in self.requests.get(delivery_id, ())}
        return any((delivery_id, step) in self.unsettled for step in steps)

    def _all_unsettled(self, delivery_id: str) -> bool:
        """Whether each attempt that was made was unsettled at a disruption: read again, it may not even match."""
        return all((delivery_id, each.attempt) in self.unsettled for each in self.requests.get(delivery_id, ()))

    # --- what is committed

    def _look_at_commits(self) -> None:
        """Find records of own topics that are committed though what they ask for was never done.

        A step that an open circuit skipped arrives nowhere; its delivery is at a later one then, or ended.
        """
        latest: dict[str, int] = {}
        arrived = {(each.delivery_id, each.attempt) for each in self.facts.requests}
        for delivery_id, step in arrived | self.waiting:
            latest[delivery_id] = max(step, latest.get(delivery_id, 0))
        for record in self.facts.records:
            delivery_id, step = record.step
            if delivery_id not in self.facts.pairs or not self._is_committed(record):
                continue
            ended = delivery_id in self.accepted or delivery_id in self.letters
            if not ended and step > latest.get(delivery_id, 0) and not self._is_withdrawn(delivery_id):
                self.verdict.passed.append(f"{record.role} {record.partition}@{record.offset}: {step} of {delivery_id}")

    # --- what was sent more than once

    def _look_at_repeats(self) -> None:
        explanations = Explanations(self.facts)
        for delivery_id, requests in self.requests.items():
            for request in repeated(requests):
                if why := explanations.of(request):
                    self.verdict.explained[why] += 1
                else:
                    self.verdict.unexplained.append(f"{self._named(delivery_id)}: {self._history(delivery_id)}")

    # --- what the log says

    def _look_at_log(self, log: Mapping[str, Logged]) -> None:
        for delivery_id, (event_id, _) in self.facts.pairs.items():
            if event_id not in self.facts.placed:
                continue
            row = log.get(delivery_id)
            if row is None:
                if not self._is_withdrawn(delivery_id) or not self._all_unsettled(delivery_id):
                    self.verdict.disagreements.append(f"{self._named(delivery_id)} isn't in the log")
                continue
            for what in self._disagreements(delivery_id, row):
                self.verdict.disagreements.append(f"{self._named(delivery_id)}: {what}")

    def _disagreements(self, delivery_id: str, row: Logged) -> Iterable[str]:
        answers: dict[int, set[int]] = defaultdict(set)
        for each in self.requests.get(delivery_id, ()):
            answers[each.attempt].add(each.status)
        for number, code in row.codes.items():
            if code and code not in answers[number]:
                yield f"attempt {number} is logged with {code}, the endpoint answered {sorted(answers[number])}"
        for number in answers.keys() - row.codes.keys():
            if (delivery_id, number) in self.unsettled and (
                row.status == "skipped" or self._went_on(delivery_id, number)
            ):
                # Whoever took it up after the fault found its webhook disabled; or its next step was durable before the
                # fault, so that nobody made it again.
                continue
            yield f"attempt {number} arrived and isn't logged"
        if not self._is_true_end(delivery_id, row):
            letters = [each.reason for each in self.letters.get(delivery_id, ())]
            accepted = "was" if delivery_id in self.accepted else "was never"
            yield f"logged as {row.status} {row.reason}, {accepted} answered 2xx; dead letters: {letters}"

    def _went_on(self, delivery_id: str, number: int) -> bool:
        """Whether a later step of a delivery, or its dead letter, stands in a topic."""
        later = any(each.step[0] == delivery_id and each.step[1] > number for each in self.facts.records)
        return later or delivery_id in self.letters

    def _is_true_end(self, delivery_id: str, row: Logged) -> bool:
        """Whether a delivery ended as the log says; at the end of a run nothing is under way."""
        accepted = delivery_id in self.accepted
        letters = {each.reason for each in self.letters.get(delivery_id, ())}
        match row.status:
            case "delivered":
                return accepted
            case "failed":
                return row.reason in letters and not accepted
            case "skipped":
                return bool(letters) or self._is_withdrawn(delivery_id)
        return False
