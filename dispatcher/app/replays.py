"""Replay jobs as a part of each worker."""

import os
import socket

from dispatcher.app.clock import draw
from dispatcher.core.catalogue import Catalogue
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.kafka.reader import RecordReader
from dispatcher.kafka.source_reader import KafkaSourceReader
from dispatcher.metrics import Metrics
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.replay_selection import MongoReplaySelection
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.pipeline.backfill import Acceptance
from dispatcher.pipeline.replay import ReplayOutside, ReplayRunner
from dispatcher.ports import Clock
from dispatcher.settings import DEAD_LETTER, Settings

_FETCH_BYTES = 256 * 1024


class WorkerReplays:
    """Runs replay jobs in a worker.

    Args:
        settings: Where Kafka is, and what is an event on which topics.
        connection: MongoDB.
        producer: The worker's.
        topic: The replay topic.
        catalogue: The event types that are known.
        clock: Time.
        metrics: Counts.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        producer: KafkaProducer,
        topic: str,
        catalogue: Catalogue,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._reader = RecordReader(settings.kafka, max_bytes=_FETCH_BYTES)
        outside = ReplayOutside(
            MongoReplays(connection.replays),
            MongoReplaySelection(connection.deliveries),
            MongoDeliveryLog(connection.deliveries),
            self._reader,
            KafkaSourceReader(settings.kafka, settings.topics, self._reader),
            MongoWebhooks(connection.webhooks),
            producer,
            clock,
        )
        # Process ids come again: chance tells this process from one that held a job before.
        owner = f"{socket.gethostname()}-{os.getpid()}-{draw(4).hex()}"
        acceptance = Acceptance(
            settings.topics.default_workspace,
            settings.topics.max_event_bytes,
            catalogue if settings.catalogue.policy == DEAD_LETTER else None,
        )
        self._runner = ReplayRunner(outside, topic, owner, acceptance, metrics)

    async def run(self) -> None:
        """Run jobs until cancelled."""
        try:
            await self._runner.run()
        finally:
            await self._reader.stop()
