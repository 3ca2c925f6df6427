"""A steady load of events in two workspaces; what Kafka acknowledged is noted."""

import asyncio
import contextlib
import json
from collections.abc import Mapping

from aiokafka.errors import KafkaError

from tests.deployment import WORKSPACE, Deployment, event
from tests.faults.soak.facts import Event, Facts

OTHER_WORKSPACE = "globex"
TICK_SECONDS = 0.1
TYPES: Mapping[int, str] = {5: "user.updated", 6: "user.updated", 7: "project.created", 8: "post.published"}
"""By the last digit of an event's number; `user.created` where none stands here."""
RARE_TYPE = "team.member.added"
RARE_EVERY = 20


class Publisher:
    """Publishes the events of a run, numbered from 0.

    Args:
        deployment: To its source topic.
        facts: Told of each event.
        per_second: How many a second.

    Attributes:
        count: How many were given to the producer.
        fresh: Deliveries that are to come of events published since somebody emptied this.
    """

    def __init__(self, deployment: Deployment, facts: Facts, per_second: int) -> None:
        self.facts = facts
        self.count = 0
        self.fresh: list[str] = []
        self._deployment = deployment
        self._per_tick = per_second * TICK_SECONDS
        self._waiting: set[int] = set()
        self._acknowledgements: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what is under way is waited for."""
        self._ended.set()
        if self._task is not None:
            await self._task
        await asyncio.gather(*self._acknowledgements)

    def cancel(self) -> None:
        """End at once."""
        for task in (*self._acknowledgements, *filter(None, (self._task,))):
            task.cancel()

    def settled(self, mark: int) -> bool:
        """Whether nothing of the first so many events waits for Kafka's answer."""
        return not any(number < mark for number in self._waiting)

    async def _run(self) -> None:
        due = 0.0
        while not self._ended.is_set():
            due += self._per_tick
            while due >= 1:
                due -= 1
                self._publish()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), TICK_SECONDS)

    def _publish(self) -> None:
        number, self.count = self.count, self.count + 1
        made = event_of(number)
        self.fresh += self.facts.publish(made)
        self._waiting.add(number)
        task = asyncio.create_task(self._send(number, made))
        self._acknowledgements.add(task)
        task.add_done_callback(self._acknowledgements.discard)

    async def _send(self, number: int, made: Event) -> None:
        value = json.dumps(event(number, made.type, made.workspace)).encode()
        try:
            await self._deployment.producer.send_and_wait(self._deployment.source, value)
        except KafkaError:
            pass  # perhaps it stands there, perhaps not: whoever reads the topic sees
        else:
            self.facts.acknowledging.append(made.id)
        finally:
            self._waiting.discard(number)


def event_of(number: int) -> Event:
    """Give the event of a number: a third in the other workspace, types by its digits."""
    kind = RARE_TYPE if number % RARE_EVERY == RARE_EVERY - 1 else TYPES.get(number % 10, "user.created")
    return Event(f"evt_{number}", kind, OTHER_WORKSPACE if number % 3 == 0 else WORKSPACE)
