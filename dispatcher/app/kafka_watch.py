"""What a worker asks Kafka beside its work: how far behind it is, and how many workers there are."""

import asyncio
from typing import Never

import structlog

from dispatcher.core.errors import MisconfiguredError, UnavailableError
from dispatcher.core.topics import group_of
from dispatcher.kafka.lag import LagReader
from dispatcher.metrics import Metrics
from dispatcher.pipeline.pipeline import Pipeline
from dispatcher.settings import Settings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
LAG_SECONDS = 10.0
"""How often the lag is read, which asks for more; each look, while Kafka doesn't tell it."""


class KafkaWatch:
    """Keeps the lag's gauge, and the part of each rate limit that is this worker's.

    Args:
        settings: Where Kafka is, and what the groups are called.
        pipeline: Whose roles and lanes.
        metrics: Instruments.

    Attributes:
        trouble: Why the lag could not be read the last time, or None: an idle worker produces nothing, and would not
            notice otherwise that Kafka is gone.
    """

    def __init__(self, settings: Settings, pipeline: Pipeline, metrics: Metrics) -> None:
        self.trouble: str | None = None
        self._consumer_group = settings.topics.consumer_group
        self._pipeline = pipeline
        self._metrics = metrics
        self._reader = LagReader(settings.kafka)

    async def run(self) -> Never:
        """Look every now and then."""
        loop = asyncio.get_running_loop()
        read_at = loop.time()
        try:
            while True:
                told = await self._share_rates()
                if not told or self.trouble or loop.time() >= read_at:
                    read_at = loop.time() + LAG_SECONDS
                    await self._read_lag()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._reader.stop()

    async def _share_rates(self) -> bool:
        """Take over this worker's part of each rate limit: one of as many as the source group has members."""
        try:
            members = await self._reader.members(group_of(self._consumer_group, "source"))
        except (UnavailableError, MisconfiguredError):
            return False  # the reading of the lag, which comes at once, says why
        if members:
            self._pipeline.lanes.share_rates(1 / members)
        return True

    async def _read_lag(self) -> None:
        lag: dict[tuple[str, int], int] = {}
        try:
            for role in self._pipeline.roles:
                mine = set(role.assigned_to)
                group = group_of(self._consumer_group, role.name)
                found = await self._reader.lag(group, sorted({topic for topic, _ in mine}))
                lag.update({each: records for each, records in found.items() if each in mine})
        except (UnavailableError, MisconfiguredError) as error:
            log.warning("the lag can't be read; trying again", error=str(error))
            self.trouble = str(error)
            # The last values may be of partitions that others read by now.
            self._metrics.set_lag({})
        else:
            self._metrics.set_lag(lag)
            self.trouble = None
