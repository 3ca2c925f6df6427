"""The operators' replays of dead letters in MongoDB: what was asked for, and how far each is.

They stand apart from the replay jobs, which workers take up: these are run by the command that was called.
"""

from collections.abc import Sequence

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument

from dispatcher.core.dead_letter_replays import Fate, LetterReplay, ReplayChoice, ReplayStage
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.reruns import SourceSpan
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document

_WANTED = ("workspace_id", "subscription_id", "event_type", "reason", "status", "since_ms", "until_ms")
_CHOSEN = ("to_subscription", "as_events", "keeps_attempts", "again", "rate", "most")


class MongoDeadLetterReplays:
    """Keeps replays of dead letters; implements `dispatcher.ports.DeadLetterReplayStore`.

    Every method raises `UnavailableError` where MongoDB is out of reach.

    Args:
        replays: The collection; majority reads and writes.
    """

    def __init__(self, replays: Collection) -> None:
        self._replays = replays

    async def insert(self, replay: LetterReplay, owner: str, now_ms: int) -> None:
        """Store a new replay; it is the owner's."""
        choice = replay.choice
        document = {
            "_id": replay.id,
            "likeness": "\n".join(choice.likeness),
            "wanted": {name: getattr(choice.wanted, name) for name in _WANTED},
            "choice": {name: getattr(choice, name) for name in _CHOSEN},
            "created_at": DatetimeMS(replay.created_at_ms),
            "replay_ends": [[partition, end] for partition, end in replay.replay_ends.items()],
            "selected": replay.selected,
            "owner": owner,
            **_progress(replay, now_ms),
        }
        with unavailable_errors():
            await self._replays.insert_one(document)

    async def like(self, choice: ReplayChoice) -> Sequence[LetterReplay]:
        """Return the replays of the same likeness, the latest first."""
        with unavailable_errors():
            found = self._replays.find({"likeness": "\n".join(choice.likeness)}).sort([("_id", -1)])
            return [_replay_of(stored) for stored in await found.to_list(length=None)]

    async def take_over(self, replay_id: str, owner: str, now_ms: int) -> LetterReplay | None:
        """Make a replay that isn't done the owner's and return it; a done one is returned as it is. None: unknown."""
        where = {"_id": replay_id, "stage": {"$ne": ReplayStage.DONE.value}}
        taken = {"owner": owner, "stage": ReplayStage.RUNNING.value, "updated_at": DatetimeMS(now_ms)}
        with unavailable_errors():
            stored: Document | None = await self._replays.find_one_and_update(
                where, {"$set": taken}, return_document=ReturnDocument.AFTER
            )
            if stored is None:
                stored = await self._replays.find_one({"_id": replay_id})
        return None if stored is None else _replay_of(stored)

    async def store(self, replay: LetterReplay, owner: str, now_ms: int) -> bool:
        """Store how far a replay is; False where it isn't the owner's any more."""
        with unavailable_errors():
            result = await self._replays.update_one(
                {"_id": replay.id, "owner": owner}, {"$set": _progress(replay, now_ms)}
            )
        return bool(result.matched_count)


def _progress(replay: LetterReplay, now_ms: int) -> Document:
    return {
        "stage": replay.stage.value,
        "whole": _listed(replay.whole),
        "left": _listed(replay.left),
        "fates": {fate.value: count for fate, count in replay.fates.items()},
        "updated_at": DatetimeMS(now_ms),
    }


def _listed(spans: Sequence[SourceSpan]) -> list[list[str | int]]:
    return [[span.topic, span.partition, span.position, span.end] for span in spans]


def _replay_of(stored: Document) -> LetterReplay:
    return LetterReplay(
        id=stored["_id"],
        choice=ReplayChoice(DeadLetterFilter(**stored["wanted"]), **stored["choice"]),
        created_at_ms=int(stored["created_at"]),
        whole=tuple(SourceSpan(*span) for span in stored["whole"]),
        left=tuple(SourceSpan(*span) for span in stored["left"]),
        replay_ends={int(partition): int(end) for partition, end in stored["replay_ends"]},
        selected=stored["selected"],
        fates={Fate(fate): count for fate, count in stored["fates"].items()},
        stage=ReplayStage(stored["stage"]),
    )
