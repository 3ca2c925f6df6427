"""The supervisor's metrics page and readiness, over workers that answer, fail, hang or are gone."""

import asyncio
import socket
from contextlib import asynccontextmanager

from aiohttp import web

from dispatcher.app.metrics_page import MetricsPage
from dispatcher.app.supervisor import WorkerProcess

PAGE = "# HELP sent_total Sent.\n# TYPE sent_total counter\nsent_total 5\n"


@asynccontextmanager
async def worker(metrics=PAGE, *, ready=200):
    """Serve one worker's pages on a free port."""

    async def answer(request):
        if request.path == "/metrics":
            return web.Response(text=metrics)
        return web.json_response({"index": ready == 200}, status=ready)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def processes(*ports):
    return [WorkerProcess(number, 1, 4000 + number, port) for number, port in enumerate(ports, start=1)]


async def test_pages_are_merged_and_each_worker_is_said_to_be_up():
    """One scrape shows all workers, the own page, and who answered."""
    async with worker() as one, worker() as two, MetricsPage(lambda: processes(one, two), lambda: "own 1\n") as page:
        text = await page.text()
    assert 'sent_total{worker="1"} 5\n' in text
    assert 'sent_total{worker="2"} 5\n' in text
    assert "\nown 1\n" in text
    assert 'dispatcher_worker_up{worker="2"} 1\n' in text


async def test_a_worker_that_hangs_is_left_out_after_the_time_out():
    """The page answers though one worker doesn't."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        silent_port = silent.getsockname()[1]
        async with worker() as one, MetricsPage(lambda: processes(one, silent_port), timeout_seconds=1.0) as page:
            text = await page.text()
            is_ready, said = await page.ready()
    assert 'sent_total{worker="1"} 5\n' in text
    assert 'dispatcher_worker_up{worker="2"} 0\n' in text
    assert not is_ready
    assert said["2"] == {"ready": False, "problem": "does not answer"}


async def test_counters_of_a_dead_worker_stay_and_restarts_are_counted():
    """Between a death and the replacement's first page, the counters are still there."""
    async with worker() as one:
        now = processes(one)
        async with MetricsPage(lambda: now) as page:
            await page.text()
            now = [WorkerProcess(1, 1)]
            assert 'sent_total{worker="1"} 5\n' in await page.text()
            now = [WorkerProcess(1, 2, 4001, one)]
            text = await page.text()
    assert 'sent_total{worker="1"} 10.0\n' in text
    assert 'dispatcher_worker_restarts_total{worker="1"} 1\n' in text


async def test_scrapes_at_the_same_time_agree():
    """Two Prometheus servers that scrape at once don't disturb each other's counters."""
    async with worker() as one, MetricsPage(lambda: processes(one)) as page:
        texts = await asyncio.gather(*(page.text() for _ in range(5)))
    assert len(set(texts)) == 1


async def test_ready_only_when_every_worker_is():
    """One worker that isn't ready makes the whole not ready, and its own words say why."""
    async with worker() as one, worker(ready=503) as two:
        async with MetricsPage(lambda: processes(one)) as page:
            assert await page.ready() == (True, {"1": {"ready": True, "said": {"index": True}}})
        async with MetricsPage(lambda: processes(one, two)) as page:
            is_ready, said = await page.ready()
    assert not is_ready
    assert said["2"] == {"ready": False, "said": {"index": False}}


async def test_a_worker_that_is_starting_or_not_running_is_not_ready():
    """No port yet and no process at all are told apart."""
    now = [WorkerProcess(1, 1, 4001), WorkerProcess(2, 1)]
    async with MetricsPage(lambda: now) as page:
        is_ready, said = await page.ready()
    assert not is_ready
    assert (said["1"]["problem"], said["2"]["problem"]) == ("starting", "not running")


async def test_without_any_worker_nothing_is_ready():
    """An empty list is no proof of readiness."""
    async with MetricsPage(list) as page:
        assert await page.ready() == (False, {})
