"""A publisher in a process of its own: neither what is measured nor another publisher waits for it."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import uvloop
from aiokafka import AIOKafkaProducer

TICK_SECONDS = 0.005
MAX_BATCH_BYTES = 1_000_000
Make = Callable[[int], bytes]


async def offer_steadily(bootstrap: str, topic: str, make: Make, per_second: float, seconds: float) -> int:
    """Publish at a steady rate from another process; return how many.

    Args:
        bootstrap: Where Kafka is.
        topic: Where to.
        make: Makes the event of a number, when its time has come; must be fit for pickling.
        per_second: How many.
        seconds: How long.
    """
    # Not forked: this process has a loop and threads of its own.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        publishing = pool.submit(_publish, bootstrap, topic, make, per_second, seconds)
        return await asyncio.wrap_future(publishing)


def _publish(bootstrap: str, topic: str, make: Make, per_second: float, seconds: float) -> int:
    return uvloop.run(_publish_steadily(bootstrap, topic, make, per_second, seconds))


async def _publish_steadily(bootstrap: str, topic: str, make: Make, per_second: float, seconds: float) -> int:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, max_batch_size=MAX_BATCH_BYTES) as producer:
        partitions = sorted(await producer.partitions_for(topic))
        began, number, turn = time.perf_counter(), 0, 0
        while (passed := time.perf_counter() - began) < seconds:
            # What one tick brings goes to one partition, as one batch: a record's own way through the client costs
            # as much as its delivery, of which the cores here have none to spare.
            batch = producer.create_batch()
            while number < passed * per_second and batch.append(key=None, value=make(number), timestamp=None):
                number += 1
            if batch.record_count():
                await producer.send_batch(batch, topic, partition=partitions[turn % len(partitions)])
                turn += 1
            await asyncio.sleep(TICK_SECONDS)
        return number
