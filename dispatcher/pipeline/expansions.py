"""The events of one role that are being made into deliveries, several at a time.

An event that goes to 100,000 subscriptions takes seconds to be handed to the lanes; the next one must not wait for
that. So each turn of a role has a number of deliveries, of which events that are under way get half, one after the
other; and where room is scarce, each slot that comes free goes to the next of them.
"""

import time
from collections import deque
from collections.abc import Callable
from enum import Enum

from dispatcher.pipeline.intake import Expansion
from dispatcher.pipeline.work import Delivery, Owner

TURN = 256
"""Deliveries that one turn of a role makes; then the loop turns."""

BEGINNING = 32
"""Deliveries of an event that are made as soon as it is taken up."""

PORTION = 4
"""Deliveries of an event that is under way, between two looks at the clock."""

TURN_SECONDS = 0.0005
"""What events that are under way may take of a turn: a webhook that is met for the first time costs much more."""

MAX_OPEN = 32
"""Events that are made into deliveries at a time."""


class Given(Enum):
    """What became of a delivery that was given on."""

    TAKEN = "taken"
    NO_ROOM = "no room"
    """For nobody: it is to be offered again."""
    LATER = "later"
    """Not for this one yet; others may go first."""


class Expansions:
    """The events of one role that aren't made into deliveries to their end.

    Args:
        owner: The role.
        give: Takes a delivery on.
        clock: Seconds that never go back.

    Attributes:
        left: How many deliveries this turn may still make.
        is_stuck: True once a delivery found no room in this turn.
    """

    __slots__ = ("_clock", "_give", "_open", "_owner", "is_stuck", "left")

    def __init__(
        self, owner: Owner, give: Callable[[Delivery], Given], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._owner = owner
        self._give = give
        self._clock = clock
        self._open: deque[Expansion] = deque()
        self.left = TURN
        self.is_stuck = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def has_room(self) -> bool:
        """True while another event may be begun with, if only to have its turn when there is room."""
        return len(self._open) < MAX_OPEN

    @property
    def may_wait(self) -> bool:
        """True while there is place for events that are told to come later."""
        return len(self._open) < MAX_OPEN // 2

    @property
    def is_idle(self) -> bool:
        """True while nothing was given on in this turn."""
        return self.left == TURN

    def begin_turn(self) -> None:
        """Go on with what is under way, each event in turn, as long as there is room."""
        self.left = TURN
        self.is_stuck = False
        until = self._clock() + TURN_SECONDS
        put_off = 0
        while put_off < len(self._open) and not self.is_stuck:
            put_off = 0 if self._go_on(self._open.popleft(), PORTION) else put_off + 1
            if self.left <= TURN // 2 or self._clock() >= until:
                break

    def begin(self, expansion: Expansion) -> None:
        """Begin with an event; what this turn leaves of it is made in the next ones."""
        expansion.work.partition.expanding += 1
        if self.is_stuck:
            self._open.append(expansion)
        else:
            self._go_on(expansion, min(self.left, BEGINNING))

    def finish(self, most: int) -> list[Delivery]:
        """Make what is left of the events that lack the fewest, so many deliveries at most, and forget the others.

        The others' records stay incomplete and are read again, and with each of them whatever is behind it.
        """
        made: list[Delivery] = []
        for expansion in sorted(self._open, key=lambda each: each.left):
            if len(made) + expansion.left > most:
                break
            while (delivery := expansion.next(self._owner)) is not None:
                made.append(delivery)
            expansion.work.partition.expanding -= 1
        self._open.clear()
        return made

    def _go_on(self, expansion: Expansion, count: int) -> bool:
        """Make so many deliveries of an event; returns whether any was taken, or it is at its end."""
        for made in range(count):
            delivery = expansion.next(self._owner)
            if delivery is None:
                expansion.work.partition.expanding -= 1
                return True
            given = self._give(delivery)
            if given is not Given.TAKEN:
                expansion.put_back(delivery)
                self.is_stuck = given is Given.NO_ROOM
                if self.is_stuck and not made:
                    # Nothing of it went: it keeps its turn.
                    self._open.appendleft(expansion)
                else:
                    self._open.append(expansion)
                return made > 0
            self.left -= 1
        self._open.append(expansion)
        return True
