"""Which letters of the dead-letter topic are still to be dealt with, of those that are asked for.

The topic is read once to know that (`take`), and once more by whoever then does something with them (`standing`).
"""

from enum import Enum

from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.handled_letters import HandledLetters
from dispatcher.core.letter_counts import REST, LetterCounts
from dispatcher.core.newest_letters import PAYLOAD_BITS, NewestLetters

# A payload, from the right: whether the letter is chosen, 10 bits of status code, 5 for its reason, the last bits of
# its offset, which tell apart two letters of one delivery and one millisecond.
_STATUS_BITS = 10
_STATUS_MASK = (1 << _STATUS_BITS) - 1
_REASON_AT = 1 + _STATUS_BITS
_REASON_BITS = 5
_REASON_MASK = (1 << _REASON_BITS) - 1
_OFFSET_AT = _REASON_AT + _REASON_BITS
_OFFSET_MASK = (1 << PAYLOAD_BITS - _OFFSET_AT) - 1


class Standing(Enum):
    """What a letter is, the whole span considered."""

    CHOSEN = "asked for, not dealt with, and the newest of its delivery"
    SUPERSEDED = "an older one of a delivery that is chosen"
    LEFT = "none of these"


class LetterChoice:
    """Goes through letters and keeps those that are asked for and still to be dealt with.

    A later letter of a delivery supersedes an earlier one, also where the later one is not asked for or was dealt with.

    Args:
        wanted: What is asked for.
        handled: What was dealt with; None: that doesn't count.

    Attributes:
        counts: The chosen ones.
        read: How many letters were taken.
        superseded: How many of those asked for an own later one supersedes.
        handled: How many of those asked for were dealt with.
    """

    def __init__(self, wanted: DeadLetterFilter, handled: HandledLetters | None = None) -> None:
        self.wanted = wanted
        self.counts = LetterCounts()
        self.read = self.superseded = self.handled = 0
        self._handled = handled or None
        self._newest = NewestLetters()
        self._reasons: dict[str, int] = {}
        self._reason_names: list[str] = []

    def take(self, letter: DeadLetter) -> bool:
        """Take in a letter; says whether it is chosen as far as is known by now: a later one may supersede it."""
        self.read += 1
        wanted = self.wanted
        if not wanted.wants_delivery(letter):
            return False
        chosen = wanted.wants(letter)
        if chosen and self._handled is not None and self._handled.has_letter(letter):
            chosen = False
            self.handled += 1
        number = self._number_of(letter.reason)
        payload = _payload(letter, number) | chosen
        older = self._newest.put(letter.identity, letter.timestamp_ms, payload)
        if chosen:
            self._count(letter, number, letter.http_status, letter.timestamp_ms, 1)
        if older is None:
            return chosen
        at_ms, known = older
        if known & 1:
            self.superseded += 1
            self._count(letter, known >> _REASON_AT & _REASON_MASK, known >> 1 & _STATUS_MASK, at_ms, -1)
        return chosen and older != (letter.timestamp_ms, payload)

    def standing(self, letter: DeadLetter) -> Standing:
        """Say what a letter is, after all were taken."""
        if not self.wanted.wants_delivery(letter):
            return Standing.LEFT
        newest = self._newest.get(letter.identity)
        if newest is None or not newest[1] & 1:
            return Standing.LEFT
        at_ms, payload = newest
        same = at_ms == letter.timestamp_ms and payload >> _OFFSET_AT == letter.offset & _OFFSET_MASK
        return Standing.CHOSEN if same else Standing.SUPERSEDED

    def _count(self, letter: DeadLetter, number: int, status: int, at_ms: int, times: int) -> None:
        """Count a letter, or one that it supersedes: the same delivery's, so only reason, status and time differ."""
        reason = self._reason_names[number] if number < _REASON_MASK else REST
        self.counts.add(
            reason, letter.workspace_id, letter.subscription_id, letter.event_type, status, at_ms, times=times
        )

    def _number_of(self, reason: str) -> int:
        number = self._reasons.get(reason)
        if number is None:
            number = len(self._reasons)
            if number >= _REASON_MASK:
                return _REASON_MASK  # of more reasons than there are, as anybody may write who has the topic
            self._reasons[reason] = number
            self._reason_names.append(reason)
        return number


def _payload(letter: DeadLetter, reason: int) -> int:
    return (letter.offset & _OFFSET_MASK) << _OFFSET_AT | reason << _REASON_AT | letter.http_status << 1
