"""`python -m tests.faults.faulty_worker FOLDER worker`: the dispatcher's command line with faults built in.

Nothing happens until a file of `FOLDER` says so (see `fault_plan.py`); the files are looked at again at each point
where a fault may happen. Only this file reaches into the product: the product has no hooks for it.
"""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder

from dispatcher.cli import main
from dispatcher.core.topics import TopicNames
from dispatcher.kafka import consumer as kafka_consumer
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.pipeline.log_buffer import LogBuffer
from tests.faults.fault_plan import FaultPlan, KillPoint

_LOOK_SECONDS = 0.05
_DEAD_LETTER = TopicNames("", ()).dead_letter


class _Kills:
    """Counts how often each point was reached since it was asked for, and ends the process at the chosen one."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._reached: Counter[str] = Counter()

    def reach(self, point: KillPoint, said: str) -> None:
        name = f"kill-{point}"
        wanted = self._plan.read(name)
        if not wanted:
            return
        self._reached[point] += 1
        if self._reached[point] >= int(wanted):
            self._plan.done(name)
            sys.stdout.write(f"killed at {point} {wanted}: {said}\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def _kill_before_log(kills: _Kills) -> None:
    write = LogBuffer._write

    async def faulty(self: LogBuffer, batch: Any) -> None:
        kills.reach("log", f"{len(batch)} entries about to be written, {len(self)} not durable")
        await write(self, batch)

    LogBuffer._write = faulty  # type: ignore[method-assign]


def _kill_after_produce(kills: _Kills) -> None:
    produce, commit = KafkaProducer.produce, kafka_consumer.KafkaConsumer._commit
    acknowledged = 0

    def noted(future: Any) -> None:
        nonlocal acknowledged
        if not future.cancelled() and future.exception() is None:
            acknowledged += 1
            kills.reach("produced", "the log doesn't have it")

    def faulty_produce(self: KafkaProducer, record: Any) -> Any:
        future = produce(self, record)
        if ".retry." in record.topic or record.topic.endswith(_DEAD_LETTER):
            future.add_done_callback(noted)
        return future

    async def faulty_commit(self: Any, epoch: int, points: Any) -> bool:
        nonlocal acknowledged
        if acknowledged:
            kills.reach("commit", f"{acknowledged} records acknowledged since the last, {points}")
        acknowledged = 0
        return await commit(self, epoch, points)

    KafkaProducer.produce = faulty_produce  # type: ignore[method-assign]
    kafka_consumer.KafkaConsumer._commit = faulty_commit  # type: ignore[method-assign]


def _refuse_produces(plan: FaultPlan) -> None:
    send_batch = AIOKafkaProducer.send_batch

    async def faulty(self: Any, batch: Any, topic: str, *, partition: int) -> Any:
        if topic in plan.read("refused").split():
            raise NotLeaderForPartitionError
        return await send_batch(self, batch, topic, partition=partition)

    AIOKafkaProducer.send_batch = faulty


def _shift_clock(plan: FaultPlan) -> None:
    real_time, real_time_ns, monotonic = time.time, time.time_ns, time.monotonic
    offset, looked_at = 0.0, 0.0

    def current() -> float:
        nonlocal offset, looked_at
        if monotonic() - looked_at > _LOOK_SECONDS:
            looked_at = monotonic()
            offset = float(plan.read("clock") or 0)
        return offset

    time.time = lambda: real_time() + current()
    time.time_ns = lambda: real_time_ns() + int(current() * 1_000_000_000)
    append = BatchBuilder.append

    def stamped(self: Any, *, timestamp: int | None, **record: Any) -> Any:
        # aiokafka's compiled part asks the system itself for the time of a record.
        return append(self, timestamp=int(time.time() * 1000) if timestamp is None else timestamp, **record)

    BatchBuilder.append = stamped


def install(plan: FaultPlan) -> None:
    """Build the faults into this process."""
    kills = _Kills(plan)
    faults: tuple[Callable[[], None], ...] = (
        lambda: _kill_before_log(kills),
        lambda: _kill_after_produce(kills),
        lambda: _refuse_produces(plan),
        lambda: _shift_clock(plan),
    )
    for fault in faults:
        fault()


if __name__ == "__main__":
    install(FaultPlan(Path(sys.argv.pop(1))))
    main()
