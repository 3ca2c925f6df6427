# ruff: noqa: D102 - the ports say what each method promises
"""MongoDB in memory, as far as deliveries need it: the log, the look-up of subscriptions; and clocks."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from dispatcher.core.delivery_log import DeliveryDocument, LogEntry, LoggedState, merge
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Subscription


class SteeredClock:
    """A `Clock` that goes with the real time, and can be moved on."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_ms / 1000


class MemoryDeliveryLog:
    """A `DeliveryLogWriter`.

    Attributes:
        down: While True nothing can be written or asked.
        hangs: While True questions get no answer at all.
        gives_up: How many entries of each write are said to be given up.
        documents: What the log holds.
        entries: Every entry written, in order; those of repeated writes too.
        asked: The delivery ids of each question.
    """

    def __init__(self, history: list[tuple[object, ...]] | None = None) -> None:
        self.history = [] if history is None else history
        self.down = False
        self.hangs = False
        self.gives_up = 0
        self.documents: dict[str, DeliveryDocument] = {}
        self.entries: list[LogEntry] = []
        self.asked: list[Sequence[str]] = []

    async def write(self, entries: Sequence[LogEntry]) -> int:
        await asyncio.sleep(0)
        if self.down:
            raise UnavailableError("MongoDB is out of reach")
        for entry in entries:
            self.entries.append(entry)
            self.documents[entry.delivery_id] = merge(self.documents.get(entry.delivery_id), entry)
            self.history.append(("logged", entry.delivery_id, entry.attempt, entry.status.value))
        return self.gives_up

    async def states(self, delivery_ids: Sequence[str]) -> Mapping[str, LoggedState]:
        self.asked.append(list(delivery_ids))
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.down:
            raise UnavailableError("MongoDB is out of reach")
        return {each: self.documents[each].state for each in delivery_ids if each in self.documents}

    def state(self, delivery_id: str) -> LoggedState | None:
        """Return where a delivery stands."""
        document = self.documents.get(delivery_id)
        return None if document is None else document.state


class MemorySubscriptions:
    """A `SubscriptionLookup`.

    Attributes:
        down: While True MongoDB is out of reach.
        stored: What it holds.
        found: The ids that were looked up.
        disabled: Subscription ids and reasons.
        gate: Cleared, answers wait for it to be set.
    """

    def __init__(self) -> None:
        self.down = False
        self.stored: dict[str, Subscription] = {}
        self.found: list[str] = []
        self.disabled: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, subscription_id: str) -> Subscription | None:
        self.found.append(subscription_id)
        await self.gate.wait()
        if self.down:
            raise UnavailableError("MongoDB is out of reach")
        return self.stored.get(subscription_id)

    async def disable(self, subscription: Subscription, reason: str, now_ms: int) -> bool:
        await self.gate.wait()
        if self.down:
            raise UnavailableError("MongoDB is out of reach")
        self.disabled.append((subscription.id, reason))
        return True
