"""Writes down what operators' commands did with dead letters: one entry for each workspace whose letters they took."""

from collections.abc import Mapping
from typing import Any

from dispatcher.core.dead_letter_replays import LetterReplay
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.times import rfc3339


class LetterAudit:
    """The entries of the commands that purge and replay dead letters.

    Args:
        audit: Where they go.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def purged(self, wanted: DeadLetterFilter, counts: Mapping[str, int]) -> None:
        """Write down a purge.

        Args:
            wanted: What it was asked for.
            counts: How many dead letters of each workspace were marked.
        """
        for workspace_id, count in counts.items():
            target = wanted.subscription_id or workspace_id
            await self._note(workspace_id, "dead_letters.purge", target, _told(wanted) | {"count": count})

    async def began(self, replay: LetterReplay, counts: Mapping[str, int]) -> None:
        """Write down that a replay began.

        Args:
            replay: It.
            counts: How many dead letters of each workspace are to go out.
        """
        choice = replay.choice
        options = {
            "to_subscription": choice.to_subscription,
            "rate": choice.rate,
            "again": choice.again or None,
            "as_event": choice.as_events or None,
        }
        for workspace_id, count in counts.items():
            told = _told(choice.wanted) | options | {"count": count}
            await self._note(workspace_id, "dead_letters.replay", replay.id, told)

    async def _note(self, workspace_id: str, action: str, target: str, told: Mapping[str, Any]) -> None:
        changes = {name: (None, value) for name, value in told.items() if value is not None}
        await self._audit.note(workspace_id, COMMAND_LINE, action, target, changes)


def _told(wanted: DeadLetterFilter) -> dict[str, Any]:
    return {
        "subscription": wanted.subscription_id,
        "type": wanted.event_type,
        "reason": wanted.reason,
        "response_code": wanted.status,
        "since": None if wanted.since_ms is None else rfc3339(wanted.since_ms),
        "until": None if wanted.until_ms is None else rfc3339(wanted.until_ms),
    }
