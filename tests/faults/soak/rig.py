"""One dispatcher under a steady load, in which faults are injected, on services of its own."""

import asyncio
import contextlib
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from aiokafka.errors import KafkaError

from dispatcher.local import LocalStack
from tests.deployment import Deployment, deploy, make_settings
from tests.faults.soak.endpoints import Endpoints, remember
from tests.faults.soak.facts import Disruption, Facts
from tests.faults.soak.fault import Fault
from tests.faults.soak.gather import Gatherer, Unsettled
from tests.faults.soak.publisher import Publisher
from tests.faults.soak.verdict import Verdict, judge
from tests.worker_process import WORKER, WorkerProcess

SAMPLE_SECONDS = 0.3
DONE_SECONDS = 120.0
LOGGED_SECONDS = 15.0
LOGS = Path(__file__).parents[3] / "build" / "soak"
"""Where the workers' logs of failed runs are kept."""
TIERS = ("300ms", "1s", "3s")
SHORT_LIMITS = {
    "KAFKA_SESSION_TIMEOUT_MS": "6000",
    "KAFKA_HEARTBEAT_INTERVAL_MS": "300",
    "KAFKA_REBALANCE_TIMEOUT_MS": "20000",
    "KAFKA_MAX_POLL_INTERVAL_MS": "6000",
    "MAX_IN_FLIGHT": "512",
    "CIRCUIT_WAIT": "3s",
}
"""So that what takes minutes otherwise happens within a run."""


class RunFailedError(AssertionError):
    """The run has shown what may not be; the text says what, and after which fault."""


@dataclass(frozen=True, slots=True)
class Injury:
    """What one fault did.

    Attributes:
        name: The fault's.
        at_seconds: When it was injected, since the run began.
        lasted_seconds: From its injection to its undoing.
        recovery_seconds: From then until all was well.
    """

    name: str
    at_seconds: float
    lasted_seconds: float
    recovery_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.at_seconds:7.1f} s  {self.name:48} "
            f"lasted {self.lasted_seconds:5.1f} s, well after {self.recovery_seconds:5.1f} s"
        )


class Rig:
    """What faults break.

    Attributes:
        stack: Kafka and MongoDB, this run's own: `kafka_process`, `mongo_process`, `folder`.
        deployment: Topics, settings, connections.
        endpoints: What webhooks send to; may be told to hang.
        publisher: The steady load.
        workers: Those that must be ready when a fault is over; a fault that starts others itself ends them as well.
        facts: What is known.
        injuries: What was done so far.
    """

    def __init__(self, stack: LocalStack, deployment: Deployment, endpoints: Endpoints, publisher: Publisher) -> None:
        self.stack = stack
        self.deployment = deployment
        self.endpoints = endpoints
        self.publisher = publisher
        self.workers: list[WorkerProcess] = []
        self.facts = publisher.facts
        self.injuries: list[Injury] = []
        self._began = time.monotonic()
        self._gatherer = Gatherer(deployment, self.facts)
        self._unsettled = Unsettled(deployment, self.facts.requests)
        self._made: list[WorkerProcess] = []
        self._unplaced: set[str] = set()
        self._requests_seen = self._records_seen = self._letters_seen = 0

    # What faults use

    def worker(
        self,
        *,
        command: Sequence[str] = WORKER,
        variables: Mapping[str, str] = MappingProxyType({}),
        **environment: str,
    ) -> WorkerProcess:
        """Make a worker process with this run's settings, not started and not among `workers`; it ends with the run.

        Args:
            command: What to give to Python in place of `-m dispatcher worker`.
            variables: Further environment variables, by their whole names.
            environment: Further settings, without their prefix.
        """
        made = self.deployment.process(command=command, variables=variables, **{**SHORT_LIMITS, **environment})
        self._made.append(made)
        return made

    async def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL a worker, and note what it may have left unsettled."""
        await worker.kill()
        await self.note_unsettled()

    async def note_unsettled(self) -> None:
        """Note which attempts are under way or not in the log, because they may be made again after what comes now.

        While a fault is injected the rig does so by itself, several times a second; a fault does where a moment counts.
        """
        found = await self._unsettled.sample()
        for disruption in self.facts.disruptions:
            if disruption.ended_at == float("inf"):
                disruption.unsettled |= found

    def _note_unchecked(self) -> None:
        """Read in the workers' logs when they had no answer of the log about what was sent before."""
        said = (line for each in self._made for line in each.said("doesn't say what was sent before"))
        self.facts.unchecked = [datetime.fromisoformat(str(line["timestamp"])).timestamp() for line in said]

    async def check(self) -> Verdict:
        """Compare what was published with what became of it, by now.

        Raises:
            RunFailedError: Something is lost, went where it may not, or is committed and unfinished.
        """
        await self._read_on()
        return await self._judge()

    # The run

    async def strike(self, fault: Fault) -> Injury:
        """Inject a fault and undo it; returns when everything is well again.

        Raises:
            RunFailedError: It isn't in time, or something is lost.
        """
        await self.endpoints.revive()
        disruption = Disruption(fault.name, time.time(), excuses=getattr(fault, "excuses_repeats", True))
        self.facts.disruptions.append(disruption)
        began = time.monotonic()
        async with self._sampling():
            await self.note_unsettled()
            try:
                await fault.inject(self)
            finally:
                await fault.undo(self)
            undone = time.monotonic()
            await self._until_well(fault, undone + fault.recovery_seconds)
            await self.note_unsettled()
        disruption.ended_at = time.time()
        recovery = time.monotonic() - undone
        self.injuries.append(Injury(fault.name, began - self._began, undone - began, recovery))
        await self.check()
        return self.injuries[-1]

    async def finish(self) -> Verdict:
        """End the load, wait until everything is done, and compare, the log included."""
        await self.publisher.stop()
        await self.deployment.until_done(seconds=DONE_SECONDS)
        await self._read_on()
        await self._until_logged()
        await self._gatherer.read_log()
        self._note_unchecked()
        return await self._judge()

    async def keep_logs(self, *exc: object) -> None:
        """Where the run failed, copy what all workers printed to a folder that stays."""
        if exc[0] is None:
            return
        folder = LOGS / self.deployment.names.prefix
        folder.mkdir(parents=True)
        for number, worker in enumerate(self._made):
            (folder / f"worker-{number}.log").write_text(worker.output())
        for service in (self.stack.kafka_process, self.stack.mongo_process):
            shutil.copy(service.log_path, folder)
        sys.stdout.write(f"what the workers, Kafka and MongoDB printed is in {folder}\n")

    async def close(self) -> None:
        """End every worker that was made."""
        for each in self._made:
            await each.close()

    async def _until_logged(self) -> None:
        """Wait a little for attempts that are logged later than their record is committed; the verdict tells of others.

        Those are late successes of deliveries that were handed over.
        """
        disturbed = {step for each in self.facts.disruptions for step in each.unsettled}
        deadline = time.monotonic() + LOGGED_SECONDS
        while not (await self._unsettled.sample()) <= disturbed and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    async def _judge(self) -> Verdict:
        verdict = await asyncio.to_thread(judge, self.facts.copied())
        if verdict.problems:
            raise RunFailedError(f"after {self._last()}:\n{verdict}")
        return verdict

    def _last(self) -> str:
        names = [each.name for each in self.facts.disruptions]
        return f"{len(names)} faults, the last one {names[-1]!r}" if names else "no fault"

    @asynccontextmanager
    async def _sampling(self) -> AsyncIterator[None]:
        async def sample() -> None:
            while True:
                await self.note_unsettled()
                await asyncio.sleep(SAMPLE_SECONDS)

        task = asyncio.create_task(sample())
        try:
            yield
        finally:
            task.cancel()

    async def _until_well(self, fault: Fault, deadline: float) -> None:
        mark = self.publisher.count
        while True:
            missing = await self._not_well(mark)
            if not missing:
                return
            if time.monotonic() > deadline:
                text = f"{fault.name}: not well {fault.recovery_seconds} s after it was undone: {missing}"
                raise RunFailedError(text)
            await asyncio.sleep(0.1)

    async def _not_well(self, mark: int) -> str:
        for number, worker in enumerate(self.workers):
            if not worker.runs:
                raise RunFailedError(f"after {self._last()}: worker {number} ended: {worker.output()[-3000:]}")
            if not await worker.ready():
                return f"worker {number} isn't ready"
        if not self.publisher.settled(mark):
            return "the publisher waits for Kafka"
        try:
            await self._read_on()
        except (KafkaError, TimeoutError) as error:
            return f"Kafka doesn't answer the test itself: {error!r}"
        left = [each for each in self._unplaced if self._is_published(each, mark)]
        return f"{len(left)} pairs neither arrived nor wait in a topic" if left else ""

    def _is_published(self, delivery_id: str, mark: int) -> bool:
        event_id, _ = self.facts.pairs[delivery_id]
        return event_id in self.facts.placed and int(event_id.removeprefix("evt_")) < mark

    async def _read_on(self) -> None:
        await self._gatherer.read_on()
        facts, fresh = self.facts, self.publisher.fresh
        self._unplaced.update(each for each in fresh if "gone" not in facts.endpoints[facts.pairs[each][1]].ends)
        fresh.clear()
        requests, records, letters = len(facts.requests), len(facts.records), len(facts.letters)
        self._unplaced.difference_update(each.delivery_id for each in facts.requests[self._requests_seen : requests])
        self._unplaced.difference_update(each.step[0] for each in facts.records[self._records_seen : records])
        self._unplaced.difference_update(each.delivery_id for each in facts.letters[self._letters_seen : letters])
        self._requests_seen, self._records_seen, self._letters_seen = requests, records, letters


@asynccontextmanager
async def open_rig(
    stack: LocalStack, name: str, chance: random.Random, *, workers: int, per_second: int
) -> AsyncIterator[Rig]:
    """Put a rig on a stack of its own: webhooks are made, workers ready, the load runs.

    Args:
        stack: Kafka and MongoDB that nobody else uses.
        name: For topics, groups and database.
        chance: Draws whatever is random.
        workers: How many.
        per_second: Events a second.
    """
    assert stack.kafka_bootstrap is not None
    assert stack.mongo_uri is not None
    settings = make_settings(stack.kafka_bootstrap, stack.mongo_uri, name, TIERS, partitions=4)
    async with deploy(settings, remember) as deployment, contextlib.AsyncExitStack() as running:
        endpoints = Endpoints(deployment, chance)
        await endpoints.make()
        facts = Facts(endpoints.known, requests=deployment.receiver.received)
        publisher = Publisher(deployment, facts, per_second)
        rig = Rig(stack, deployment, endpoints, publisher)
        running.push_async_callback(rig.close)
        running.push_async_exit(rig.keep_logs)
        for _ in range(workers):
            rig.workers.append(rig.worker())
            await rig.workers[-1].start()
        publisher.start()
        running.callback(publisher.cancel)
        yield rig
