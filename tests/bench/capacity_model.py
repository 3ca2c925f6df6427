"""What a load needs, from what one delivery was measured to cost. Arithmetic alone: nothing is read or run here."""

import math
from dataclasses import dataclass

DAY_SECONDS = 86_400
BUSY = 0.6
"""The share of a core that is planned with: the rest is for peaks within a second, and for a worker that is gone."""
PEAK = 5.0
"""How much more comes in a day's busiest seconds than in the mean of the day."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, with one worker, one broker and one mongod on one machine.

    CPU is in microseconds: of worker and mongod what work adds to an idle process, of the broker all that it used
    meanwhile. `idle` are cores. Bytes are means.

    Attributes:
        measured_on: The day, as in `2026-01-15`.
        machine: Its processors, in words.
        deliveries: How many were counted that succeeded at once.
        retried: How many were counted that took one retry.
        per_second: What one worker made of a backlog while all others shared the machine with it.
        worker_mib: The largest resident size of a worker.
        webhook_bytes: What one more webhook adds to it.
        worker_us: CPU of the worker for a delivery that succeeds at once.
        mongod_us: Likewise of mongod.
        broker_us: Likewise of the broker, the publishing of the event included.
        retry_worker_us: What one retry adds.
        retry_mongod_us: Likewise.
        retry_broker_us: Likewise.
        idle_worker: A worker that has nothing to do.
        idle_mongod: Mongod beside it.
        idle_broker: The broker beside it.
        event_bytes: The value of a published event.
        source_bytes: What the source topic's segments hold of it.
        retry_bytes: What a delay topic's segments hold of a retry.
        log_bytes: What the delivery log holds of a delivery, before compression.
        retry_log_bytes: What one retry adds to that.
        log_disk_bytes: What a delivery takes on disk, without indexes.
        index_bytes: What its index entries take on disk.
    """

    measured_on: str
    machine: str
    deliveries: int
    retried: int
    per_second: float
    worker_mib: float
    webhook_bytes: float
    worker_us: float
    mongod_us: float
    broker_us: float
    retry_worker_us: float
    retry_mongod_us: float
    retry_broker_us: float
    idle_worker: float
    idle_mongod: float
    idle_broker: float
    event_bytes: float
    source_bytes: float
    retry_bytes: float
    log_bytes: float
    retry_log_bytes: float
    log_disk_bytes: float
    index_bytes: float


@dataclass(frozen=True, slots=True)
class Load:
    """What comes, each event for one webhook.

    Attributes:
        name: Its column.
        per_day: Deliveries.
        peak_per_second: Deliveries in the busiest seconds.
        webhooks: How many are stored.
        retried_share: Retries for each delivery.
        event_bytes: The value of an event.
        endpoint_seconds: How long endpoints take to answer.
    """

    name: str
    per_day: float
    peak_per_second: float
    webhooks: int
    retried_share: float = 0.05
    event_bytes: float = 1_000.0
    endpoint_seconds: float = 0.2


@dataclass(frozen=True, slots=True)
class Start:
    """What somebody begins with: settings as they are by default, one worker, one MongoDB primary, and three brokers.

    With three replicas each broker has a copy of everything.

    Attributes:
        partitions: Of each topic; no more workers than that have work.
        max_in_flight: Of one worker.
        log_days: How long the delivery log keeps deliveries.
        topic_days: How long topics keep records.
        mongod_cores: Of the primary.
        mongod_gb: Its disk, in 1e9 bytes.
        broker_cores: Of all brokers together.
        broker_gb: The disk of each broker.
    """

    partitions: int = 8
    max_in_flight: int = 4_096
    log_days: int = 30
    topic_days: int = 7
    mongod_cores: int = 4
    mongod_gb: float = 1_000.0
    broker_cores: int = 12
    broker_gb: float = 1_000.0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a load needs; `used` says how much of a `Start` that is, largest share first. Disks are in 1e9 bytes.

    Attributes:
        worker_cores: At the peak.
        workers: Processes; two at least, so that one may be gone.
        worker_mib: Memory of each.
        partitions: Of the source topics and the own ones: two for each worker, so that more workers can come.
        in_flight: Requests under way at the peak.
        mongod_cores: Of the primary, at the peak.
        writes_per_second: Deliveries and retries that the log is told of, at the peak.
        mongod_gb: The delivery log with its indexes, on each member of the replica set.
        index_gb: The part of it that is indexes.
        broker_cores: Of all brokers together, without copying to replicas.
        source_gb: The source topics, on each broker.
        own_gb: The delay topics, on each broker.
        used: Part of a `Start` and how often it is used up; above 1 it is too small.
    """

    worker_cores: float
    workers: int
    worker_mib: float
    partitions: int
    in_flight: float
    mongod_cores: float
    writes_per_second: float
    mongod_gb: float
    index_gb: float
    broker_cores: float
    source_gb: float
    own_gb: float
    used: tuple[tuple[str, float], ...]


LOADS = (
    Load("1,000 a day", 1e3, 1e3 / DAY_SECONDS * PEAK, 10),
    Load("100,000 a day", 1e5, 1e5 / DAY_SECONDS * PEAK, 1_000),
    Load("10,000,000 a day", 1e7, 1e7 / DAY_SECONDS * PEAK, 10_000),
    Load("100,000 a second", 1e5 * DAY_SECONDS, 1e5, 100_000),
)
"""The columns of the page; the last is a rate that is kept up all day."""


def model(figures: Figures, load: Load, start: Start = Start()) -> Needs:
    """Say what a load needs.

    What is assumed: cost grows with the number of deliveries and of retries (`make bench` shows that it does), a core
    here is a core there, compression stays as good, and events that are larger than the measured ones take as much
    more on topics as they are larger.
    """
    rate, again = load.peak_per_second, load.retried_share
    working = rate * (figures.worker_us + again * figures.retry_worker_us) / 1e6
    in_flight = rate * (1 + again) * load.endpoint_seconds
    workers = max(2, math.ceil(working / BUSY), math.ceil(in_flight / start.max_in_flight))
    mongod = workers * figures.idle_mongod + rate * (figures.mongod_us + again * figures.retry_mongod_us) / 1e6
    broker = workers * figures.idle_broker + rate * (figures.broker_us + again * figures.retry_broker_us) / 1e6
    compressed = figures.log_disk_bytes / figures.log_bytes
    logged = figures.log_disk_bytes + figures.index_bytes + again * figures.retry_log_bytes * compressed
    larger = load.event_bytes - figures.event_bytes
    brokers_gb = [load.per_day * start.topic_days * each / 1e9 for each in (
        figures.source_bytes + larger, again * (figures.retry_bytes + larger),
    )]  # fmt: skip
    mongod_gb = load.per_day * start.log_days * logged / 1e9
    used = {
        "one worker": working / BUSY,
        "requests of one worker": in_flight / start.max_in_flight,
        "partitions": max(working / BUSY, in_flight / start.max_in_flight) / start.partitions,
        "MongoDB's processors": mongod / BUSY / start.mongod_cores,
        "MongoDB's disk": mongod_gb / start.mongod_gb,
        "Kafka's processors": broker / BUSY / start.broker_cores,
        "Kafka's disks": sum(brokers_gb) / start.broker_gb,
    }
    return Needs(
        worker_cores=workers * figures.idle_worker + working,
        workers=workers,
        worker_mib=figures.worker_mib + load.webhooks * figures.webhook_bytes / 2**20,
        partitions=max(start.partitions, 2 * workers),
        in_flight=in_flight,
        mongod_cores=mongod,
        writes_per_second=rate * (1 + again),
        mongod_gb=mongod_gb,
        index_gb=load.per_day * start.log_days * figures.index_bytes / 1e9,
        broker_cores=broker,
        source_gb=brokers_gb[0],
        own_gb=brokers_gb[1],
        used=tuple(sorted(used.items(), key=lambda item: -item[1])),
    )
