"""The delivery log behind the sends: entries are gathered, written in bulk, and only then complete their record."""

import asyncio
from collections.abc import Callable

import structlog

from dispatcher.core.delivery_log import LogEntry
from dispatcher.core.errors import UnavailableError
from dispatcher.metrics import Metrics
from dispatcher.pipeline.work import RecordWork
from dispatcher.ports import DeliveryLogWriter

log = structlog.get_logger(__name__)

BATCH_ENTRIES = 1000
LINGER_SECONDS = 0.01
MAX_WRITES_AT_ONCE = 2
MAX_UNLOGGED = 8192
_BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class LogBuffer:
    """Gathers entries and writes them; a record's part is done when its entry is durable.

    With MongoDB out of reach the entries wait and are written again; `has_room` is False when too many do.

    Args:
        writer: Writes them.
        metrics: Counts what was given up and what had to be written again.
        wake: Called after entries were written, when room may have come.
    """

    def __init__(self, writer: DeliveryLogWriter, metrics: Metrics, wake: Callable[[], None]) -> None:
        self._writer = writer
        self._metrics = metrics
        self._wake = wake
        self._entries: list[tuple[LogEntry, RecordWork | None]] = []
        self._unlogged = 0
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.failing_since: float | None = None

    def __len__(self) -> int:
        """How many entries are not durable yet."""
        return self._unlogged

    @property
    def has_room(self) -> bool:
        """True while more outcomes may wait to be logged."""
        return self._unlogged < MAX_UNLOGGED

    def append(self, entry: LogEntry, work: RecordWork | None) -> None:
        """Add an entry.

        Args:
            entry: What to write.
            work: The record whose part is done once the entry is durable; None where nothing waits for it.
        """
        self._entries.append((entry, work))
        self._unlogged += 1
        if len(self._entries) >= BATCH_ENTRIES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._entries and len(self._writes) < MAX_WRITES_AT_ONCE:
            batch, self._entries = self._entries[:BATCH_ENTRIES], self._entries[BATCH_ENTRIES:]
            task = asyncio.get_running_loop().create_task(self._write(batch))
            self._writes.add(task)
            task.add_done_callback(self._written)

    def _written(self, task: "asyncio.Task[None]") -> None:
        self._writes.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            raise fault  # a fault of this program: the loop's handler ends the process
        if self._entries and not self._closed:
            self._flush()

    async def _write(self, batch: list[tuple[LogEntry, RecordWork | None]]) -> None:
        entries = [entry for entry, _ in batch]
        failures = 0
        while True:
            try:
                given_up = await self._writer.write(entries)
                break
            except UnavailableError as error:
                if self.failing_since is None:
                    self.failing_since = asyncio.get_running_loop().time()
                    log.warning("delivery log can't be written; trying again", error=str(error))
                self._metrics.log_write_failures.inc()
                await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])
                failures += 1
        self.failing_since = None
        if given_up:
            self._metrics.log_given_up.inc(given_up)
        self._unlogged -= len(batch)
        for _, work in batch:
            if work is not None:
                work.done()
        self._wake()

    async def close(self, within_seconds: float) -> bool:
        """Write what is left.

        Returns:
            True where everything is durable; False where the time ran out.
        """
        deadline = asyncio.get_running_loop().time() + within_seconds
        while self._unlogged:
            self._flush()
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not self._writes:
                break
            await asyncio.wait(self._writes, timeout=left)
        self._closed = True
        for task in self._writes:
            task.cancel()
        return self._unlogged == 0
