"""One metrics page and one readiness answer for a supervisor and its workers, scraped when asked for."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

import aiohttp
import orjson

from dispatcher.app.merging import PageMerger, WorkerPage
from dispatcher.app.supervisor import WorkerProcess
from dispatcher.metrics import WORKER_RESTARTS, WORKER_UP

SCRAPE_SECONDS = 1.0
_OK = 200

_ABOUT_WORKERS = f"""\
# HELP {WORKER_UP[0]} {WORKER_UP[1]}
# TYPE {WORKER_UP[0]} gauge
{{up}}# HELP {WORKER_RESTARTS[0]} {WORKER_RESTARTS[1]}
# TYPE {WORKER_RESTARTS[0]} counter
{{restarts}}"""


class MetricsPage:
    """Asks the workers side by side and merges what they say.

    Use it as an asynchronous context manager; it keeps connections to the workers.

    Args:
        workers: The workers as they are now.
        own: This process's page, in Prometheus's text format.
        timeout_seconds: A worker that doesn't answer within it is left out of this answer.
    """

    def __init__(
        self,
        workers: Callable[[], Sequence[WorkerProcess]],
        own: Callable[[], str] = lambda: "",
        *,
        timeout_seconds: float = SCRAPE_SECONDS,
    ) -> None:
        self._workers = workers
        self._own = own
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._merger = PageMerger()
        self._one_at_a_time = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def text(self) -> str:
        """Return the merged page; a dead worker's counters stay in it."""
        # In turn: merged in another order than they were taken, pages would make counters go back.
        async with self._one_at_a_time:
            workers = self._workers()
            answers = await asyncio.gather(*(self._get(worker, "/metrics") for worker in workers))
            pages = [
                WorkerPage(
                    worker.number, worker.incarnation, body.decode("utf-8", "replace") if status == _OK else None
                )
                for worker, (status, body) in zip(workers, answers, strict=True)
            ]
            return self._merger.merge(pages, self._own() + _about(workers, pages))

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Say whether all workers are ready.

        Returns:
            True only where there is a worker and every one answers 200 to `/readyz`; and by worker number what
            each said.
        """
        workers = self._workers()
        answers = await asyncio.gather(*(self._get(worker, "/readyz") for worker in workers))
        said = {
            str(worker.number): {"ready": status == _OK, **_detail(worker, status, body)}
            for worker, (status, body) in zip(workers, answers, strict=True)
        }
        return bool(answers) and all(status == _OK for status, _ in answers), said

    async def _get(self, worker: WorkerProcess, path: str) -> tuple[int, bytes]:
        """Ask one worker; status 0 where it gave no answer."""
        if worker.metrics_port is None or self._session is None:
            return 0, b""
        try:
            async with self._session.get(f"http://127.0.0.1:{worker.metrics_port}{path}") as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, b""


def _about(workers: Sequence[WorkerProcess], pages: Sequence[WorkerPage]) -> str:
    up = "".join(f'{WORKER_UP[0]}{{worker="{page.number}"}} {int(page.text is not None)}\n' for page in pages)
    restarts = "".join(
        f'{WORKER_RESTARTS[0]}{{worker="{worker.number}"}} {max(worker.incarnation - 1, 0)}\n' for worker in workers
    )
    return _ABOUT_WORKERS.format(up=up, restarts=restarts)


def _detail(worker: WorkerProcess, status: int, body: bytes) -> dict[str, Any]:
    if worker.pid is None:
        return {"problem": "not running"}
    if worker.metrics_port is None:
        return {"problem": "starting"}
    if status == 0:
        return {"problem": "does not answer"}
    try:
        return {"said": orjson.loads(body)}
    except orjson.JSONDecodeError:
        return {"said": body.decode("utf-8", "replace").strip()[:1000]}
