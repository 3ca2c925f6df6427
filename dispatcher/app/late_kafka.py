"""Kafka for a process that can do without it: connected at first use, and never waited for without end."""

import asyncio
from collections.abc import Iterable, Mapping

from dispatcher.app.connections import producer_of
from dispatcher.core.errors import UnavailableError
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.kafka.reader import RecordReader
from dispatcher.ports import ConsumedRecord, Coordinates, OutgoingRecord
from dispatcher.settings import Settings

PLACE_SECONDS = 10.0

_SHOWN = "the service can't reach Kafka, which this call needs; send the request again in a while"
_NOT_CONFIGURED = "this call needs Kafka, and the service has no address of it; its operator sets one"


class LateKafka:
    """Reads and places single records; implements `dispatcher.ports.RecordLookup` and `RecordPlacer`.

    Args:
        settings: Where Kafka is; without an address every call says so.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = RecordReader(settings.kafka)
        self._producer: KafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        """See `RecordLookup`."""
        self._check()
        try:
            return await self._reader.read(topic, partition, offset)
        except UnavailableError as error:
            raise UnavailableError(str(error), shown=_SHOWN) from error

    async def read_many(self, wanted: Iterable[Coordinates]) -> Mapping[Coordinates, ConsumedRecord]:
        """See `RecordLookup`."""
        self._check()
        try:
            return await self._reader.read_many(wanted)
        except UnavailableError as error:
            raise UnavailableError(str(error), shown=_SHOWN) from error

    async def place(self, record: OutgoingRecord) -> None:
        """See `RecordPlacer`; waits for at most `PLACE_SECONDS`."""
        self._check()
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await (await self._started()).produce(record)
        except TimeoutError as error:
            raise UnavailableError(f"Kafka took no record for {record.topic} in time", shown=_SHOWN) from error
        except UnavailableError as error:
            raise UnavailableError(str(error), shown=_SHOWN) from error

    async def stop(self) -> None:
        """Close what was opened."""
        await self._reader.stop()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    def _check(self) -> None:
        if not self._settings.kafka.bootstrap_servers:
            raise UnavailableError("no DISPATCHER_KAFKA_BOOTSTRAP_SERVERS is configured", shown=_NOT_CONFIGURED)

    async def _started(self) -> KafkaProducer:
        async with self._starting:
            if self._producer is not None and self._producer.failure is not None:
                failed, self._producer = self._producer, None
                await failed.stop(0)
            if self._producer is None:
                producer = producer_of(self._settings)
                await producer.start()
                self._producer = producer
            return self._producer
