"""Listing a large dead-letter topic: time, CPU and memory of `dispatcher dead-letters list`, as its own process.

python -m tests.bench.dead_letters [--letters 1000000]
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from dispatcher import config
from dispatcher.app.connections import kafka_producer
from dispatcher.app.resolve import offered
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord, bad_record_headers, encode_headers
from dispatcher.core.topics import TopicNames
from dispatcher.kafka import topics
from dispatcher.local import start_local
from dispatcher.ports import OutgoingRecord
from dispatcher.settings import Settings

LETTERS = 1_000_000
TWICE_EVERY = 50
"""Of so many deliveries, one has a second dead letter."""
BAD_EVERY = 100
"""Of so many letters, one is a source record that is no event."""

_AT_ONCE = 20_000
_REASONS = (("attempts_exhausted", 503, "the endpoint answered 503"), ("attempts_exhausted", 0, "timeout: 10 s"),
            ("gone", 410, "the endpoint answered 410"), ("circuit_open", 0, "the circuit was open"))  # fmt: skip
_TYPES = ("user.created", "user.updated", "project.created", "post.publishing_failed")


@dataclass(frozen=True, slots=True)
class ListFigures:
    """What one listing took.

    Attributes:
        letters: How many records were on the topic.
        counted: How many letters the listing counted.
        seconds: From the start of the process to its end.
        cpu_seconds: Of the process.
        peak_bytes: Its largest resident size.
    """

    letters: int
    counted: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


async def measure_list(letters: int = LETTERS) -> ListFigures:
    """Put letters on the dead-letter topic of a stack of its own, and list them in a process."""
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as folder:
        stack = await start_local(Path(folder), kafka=True, mongo=True, report=print)
        environ = {
            "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap,
            "DISPATCHER_MONGO_URI": stack.mongo_uri,
            "DISPATCHER_ENCRYPTION_KEYS": stack.encryption_key,
        }
        try:
            settings = config.load(environ, local=offered(stack), run_local=True)
            await topics.ensure(settings.kafka, settings.topics)
            await fill(settings, letters)
            return await asyncio.to_thread(_list, environ, letters)
        finally:
            await stack.stop()


async def fill(settings: Settings, letters: int) -> None:
    """Produce dead letters as workers do."""
    topic = TopicNames(settings.topics.prefix, settings.topics.tiers).dead_letter
    waiting: list[asyncio.Future[None]] = []
    async with kafka_producer(settings) as producer:
        for record in _records(topic, letters):
            waiting.append(producer.produce(record))
            if len(waiting) >= _AT_ONCE:
                await asyncio.gather(*waiting)
                waiting = []
        await asyncio.gather(*waiting)


def _records(topic: str, letters: int) -> Iterator[OutgoingRecord]:
    now_ms = int(time.time() * 1000)
    for number in range(letters):
        reason, status, error = _REASONS[number % len(_REASONS)]
        origin = Origin("events", number % 8, number, now_ms)
        if number % BAD_EVERY == 0:
            headers = bad_record_headers(origin, "undecodable", "no JSON at byte 0")
            yield OutgoingRecord(topic, None, b"\x00rubbish", headers)
            continue
        delivery = number - number % TWICE_EVERY if number % TWICE_EVERY == 1 else number
        webhook = delivery % 300
        value = {
            "id": f"evt_{delivery:022d}",
            "type": _TYPES[delivery % len(_TYPES)],
            "created_at": "2026-01-15T10:30:00Z",
            "workspace_id": f"workspace-{webhook % 20}",
            "data": {"user": {"id": f"usr_{delivery}", "name": "Somebody", "email": "somebody@example.com"}},
        }
        letter = DeliveryRecord(
            f"del_{delivery:026d}",
            f"wh_{webhook:026d}",
            f"workspace-{webhook % 20}",
            6,
            0,
            now_ms,
            None,
            origin,
            reason,
            status,
            error,
        )
        yield OutgoingRecord(topic, letter.key, json.dumps(value).encode(), encode_headers(letter, ()))


def _list(environ: dict[str, str], letters: int) -> ListFigures:
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "dispatcher", "dead-letters", "list", "--json"],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "dispatcher dead-letters list")
    return ListFigures(
        letters,
        told["count"],
        time.perf_counter() - began,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
    )


async def show_dead_letters(letters: int = LETTERS) -> None:
    """Print what listing takes."""
    found = await measure_list(letters)
    print(
        f"dead-letters list    {found.letters:,} letters ({found.counted:,} counted) in {found.seconds:.1f} s: "
        f"{found.cpu_seconds / found.letters * 1e6:.1f} µs of CPU each, {found.peak_bytes / 2**20:.0f} MiB peak"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=LETTERS)
    uvloop.run(show_dead_letters(parser.parse_args().letters))
