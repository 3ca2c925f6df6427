"""What a replay of dead letters would do, before anything is sent."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dispatcher.core.dead_letter_replays import DeadLetterReplay, Fate, ReplayChoice, ReplayStage
from dispatcher.core.decoding import rfc3339
from dispatcher.core.errors import InvalidInputError
from dispatcher.core.reruns import SourceSpan
from dispatcher.pipeline.dead_letter_deliveries import Prepared
from dispatcher.ports import ChosenLetters


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
        repeated: Of earlier replays of the same range: how many of the letters lie in each.
        logged_run: The latest run that was met; the replay's id has to sort behind it.
    """

    choice: ReplayChoice
    spans: Sequence[SourceSpan]
    letters: ChosenLetters
    earlier: Sequence[DeadLetterReplay]
    counts: Counter[tuple[str, str, Fate]] = field(default_factory=Counter)
    deliveries: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
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
            if replay.covers(letter.letter):
                self.repeated[replay.id] += 1
                return

    @property
    def is_full(self) -> bool:
        """True once as many letters would go out as were asked for."""
        return self.choice.most is not None and self.of(Fate.REPLAYED) >= self.choice.most


def refusal(plan: Plan) -> str:
    """Say of which earlier replays a plan would be a repetition, and what to do instead."""
    lines = []
    for replay in plan.earlier:
        if count := plan.repeated[replay.id]:
            at = rfc3339(replay.created_at_ms)
            lines.append(
                f"{count} of the {plan.chosen} dead letters chosen lie in what {replay.id} went through, "
                f"as it was at {at}, with the same filters (but for the times) and the same target"
            )
            if replay.stage is not ReplayStage.DONE:
                lines.append(
                    f"{replay.id} was not finished; go on with it: dispatcher dead-letters replay --resume {replay.id}"
                )
    latest = max(replay.created_at_ms for replay in plan.earlier if plan.repeated[replay.id])
    lines.append(f"replay only what came later with --since {rfc3339(latest)}, or all of them once more with --again")
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
