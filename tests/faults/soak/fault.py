"""What a fault is: something that breaks the rig and mends it again."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.faults.soak.rig import Rig


class Fault(Protocol):
    """One fault, injected once.

    The rig injects it under load, undoes it in any case, waits until everything is well again, and then compares what
    was published with what arrived. What the fault itself expects it asserts.

    Nothing is to be sent again because of it where it has an attribute `excuses_repeats` that is False.

    Attributes:
        name: A few words for the report: `worker killed`.
        recovery_seconds: How long it may take, from `undo` on, until all workers are ready and everything published by
            then has arrived or waits in a tier.
    """

    name: str
    recovery_seconds: float

    async def inject(self, rig: "Rig") -> None:
        """Break something; returns when it was broken for long enough."""

    async def undo(self, rig: "Rig") -> None:
        """Mend it; also called where `inject` failed half-way, or was cancelled."""


FaultMaker = Callable[[random.Random], Fault]
"""Makes a fault; draws from the run's seeded chance where something about it is random."""
