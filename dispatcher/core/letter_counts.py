"""Counts of dead letters: by reason, workspace, subscription, event type, status code and hour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dispatcher.core.dead_letters import HOUR_MS

MAX_ROWS = 1_000
"""As many different values of one kind are counted apart; what comes later is counted together."""


class _Rest:
    def __repr__(self) -> str:
        return "REST"


REST: Final = _Rest()
"""The value that stands for everything beyond `MAX_ROWS`."""


class CountedBy(StrEnum):
    """What dead letters are counted by."""

    REASON = "reason"
    WORKSPACE = "workspace"
    SUBSCRIPTION = "subscription"
    TYPE = "type"
    STATUS = "status"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class CountRow:
    """One row of a count.

    Attributes:
        value: The reason, id, type, status code (0: no answer) or hour (its start, unix milliseconds); None where a
            letter has none; `REST` for all that are not counted apart.
        count: How many letters.
    """

    value: object
    count: int


class LetterCounts:
    """Counts letters, in bounded memory.

    Args:
        max_rows: As many different values of one kind are counted apart.

    Attributes:
        total: How many there are.
    """

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self.total = 0
        self._max_rows = max_rows
        self._rows: dict[CountedBy, dict[object, int]] = {by: {} for by in CountedBy}

    def add(
        self,
        reason: object,
        workspace_id: str | None,
        subscription_id: str | None,
        event_type: str | None,
        http_status: int,
        timestamp_ms: int,
        times: int = 1,
    ) -> None:
        """Count a letter; with `times` -1, a letter that was counted before counts no more."""
        self.total += times
        values = (reason, workspace_id, subscription_id, event_type, http_status, timestamp_ms // HOUR_MS)
        for rows, value in zip(self._rows.values(), values, strict=True):
            # A value once counted apart stays so, and none comes to it later: so -1 finds the row that had the +1.
            row = value if value in rows or len(rows) < self._max_rows else REST
            rows[row] = rows.get(row, 0) + times

    def by(self, kind: CountedBy) -> Sequence[CountRow]:
        """Return the rows of one kind, the largest first and hours in their order; `REST` last."""
        rows: Mapping[object, int] = self._rows[kind]
        found = [
            CountRow(value * HOUR_MS if kind is CountedBy.HOUR and isinstance(value, int) else value, count)
            for value, count in rows.items()
            if count > 0  # below only where letters of one delivery contradict each other: somebody wrote some
        ]
        if kind is CountedBy.HOUR:
            found.sort(key=lambda row: (row.value is REST, row.value if isinstance(row.value, int) else 0))
        else:
            found.sort(key=lambda row: (row.value is REST, -row.count, row.value is None, str(row.value)))
        return found
