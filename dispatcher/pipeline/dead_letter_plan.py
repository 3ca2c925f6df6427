"""What a replay of dead letters would do, before anything is sent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.core.dead_letter_replays import Fate, LetterReplay, ReplayChoice, ReplayStage
from dispatcher.core.decoding import rfc3339
from dispatcher.core.errors import InvalidInputError
from dispatcher.core.reruns import SourceSpan
from dispatcher.pipeline.dead_letter_deliveries import Prepared
from dispatcher.ports import ChosenLetters

_BEHIND = frozenset({Fate.HANDLED, Fate.DELIVERED, Fate.UNDER_WAY, Fate.SUPERSEDED})
"""What becomes of letters that were sent before; with any other fate, an earlier replay left them out as well."""


@dataclass(slots=True)
class Plan:
    """What a replay would do.

    Attributes:
        choice: What was asked for.
        spans: The dead-letter topic, as it was looked at.
        letters: Its letters, to be read once more.
        earlier: Replays that this one may be a repetition of.
        counts: How many letters there are of each workspace (of the letter), webhook (that they would go to) and fate;
            empty where a letter doesn't say.
        deliveries: How many deliveries would go out.
        repeated: Of earlier replays of the same range: how many of the letters they dealt with, or are still to.
        unfinished: How many of the letters that would go out are still to be sent by a replay that isn't done.
        logged_run: The latest run that was met; the replay's id has to sort behind it.
    """

    choice: ReplayChoice
    spans: Sequence[SourceSpan]
    letters: ChosenLetters
    earlier: Sequence[LetterReplay]
    counts: Counter[tuple[str, str, Fate]] = field(default_factory=Counter)
    deliveries: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    logged_run: str = ""

    @property
    def chosen(self) -> int:
        """How many dead letters were chosen."""
        return self.counts.total()

    def of(self, fate: Fate) -> int:
        """Return how many of them have this fate."""
        return sum(count for (_, _, each), count in self.counts.items() if each is fate)

    def take(self, letter: Prepared) -> None:
        """Count a letter."""
        self.counts[letter.letter.workspace_id or "", letter.subscription_id, letter.fate] += 1
        self.deliveries += len(letter.outgoing)
        self.logged_run = max(self.logged_run, letter.logged_run)
        for replay in self.earlier:
            theirs = letter.fate in _BEHIND or (letter.fate is Fate.REPLAYED and replay.stage is not ReplayStage.DONE)
            if theirs and replay.covers(letter.letter):
                self.repeated[replay.id] += 1
                self.unfinished += letter.fate is Fate.REPLAYED
                return

    @property
    def replayed_of_workspaces(self) -> Mapping[str, int]:
        """How many letters of each workspace would go out; of what is known to be nobody's, none."""
        found: Counter[str] = Counter()
        for (workspace_id, _, fate), count in self.counts.items():
            if workspace_id and fate is Fate.REPLAYED:
                found[workspace_id] += count
        return found

    @property
    def is_repetition(self) -> bool:
        """True where it must not begin: all was sent before, or a replay that isn't done is still to send some."""
        return not self.choice.again and bool(self.unfinished or (self.repeated and not self.of(Fate.REPLAYED)))

    @property
    def is_full(self) -> bool:
        """True once as many letters would go out as were asked for."""
        return self.choice.most is not None and self.of(Fate.REPLAYED) >= self.choice.most


def refusal(plan: Plan) -> str:
    """Say of which earlier replays a plan would be a repetition, and what to do instead."""
    lines, met = [], [replay for replay in plan.earlier if plan.repeated[replay.id]]
    for replay in met:
        lines.append(
            f"{plan.repeated[replay.id]} of the {plan.chosen} dead letters chosen lie in what {replay.id} is about, as "
            f"it was at {rfc3339(replay.created_at_ms)}, with the same filters (but for the times) and the same target"
        )
        if replay.stage is not ReplayStage.DONE:
            lines.append(f"{replay.id} is not done; go on with it: dispatcher dead-letters replay --resume {replay.id}")
    latest = rfc3339(max(replay.created_at_ms for replay in met))
    lines.append(
        f"replay only what came later with --since {latest}, or all of them with --again, also what was sent before"
    )
    return "\n".join(lines)


def checked(plan: Plan) -> Plan:
    """Return a plan whose letters may all go where they would go.

    Raises:
        InvalidInputError: Some are of another workspace than the webhook that everything is to go to.
    """
    to_subscription, strangers = plan.choice.to_subscription, plan.of(Fate.MISMATCH)
    if to_subscription is not None and strangers:
        raise InvalidInputError(
            {
                "to_subscription": f"{strangers} of the dead letters chosen are of another workspace than "
                f"{to_subscription}; choose those of its workspace alone, with --workspace"
            }
        )
    return plan
