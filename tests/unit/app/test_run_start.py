"""What `dispatcher run` does and says while not everything is up yet."""

import asyncio
import os
import signal

import pytest

from dispatcher.app import run as running
from dispatcher.app.run import _ended_before, _until_ready, _why_not_ready

NOT_READY = {"status": "not ready", "not_ready": {"groups": "not joined yet: source", "mongo": "it doesn't answer"}}


class Page:
    """Workers that become ready when they were asked so many times."""

    def __init__(self, asked_until_ready):
        self.left = asked_until_ready

    async def ready(self):
        """See `MetricsPage`."""
        self.left -= 1
        return self.left <= 0, {"1": {"ready": True}, "2": {"ready": self.left <= 0, "said": NOT_READY}}


async def test_a_start_that_takes_long_says_what_is_missing(monkeypatch, capsys):
    """The waiting is never given up: it says which worker lacks what, and goes on until all are ready."""
    monkeypatch.setattr(running, "READY_WITHIN_SECONDS", 0)
    monkeypatch.setattr(running, "_LOOK_SECONDS", 0)
    await asyncio.wait_for(_until_ready(Page(3)), 20)
    line = "Still waiting for worker 2: groups: not joined yet: source; mongo: it doesn't answer"
    assert capsys.readouterr().out.splitlines() == [line, line]


async def test_a_start_in_time_says_nothing(capsys):
    """Where the workers are ready soon, there is nothing to tell."""
    await asyncio.wait_for(_until_ready(Page(2)), 20)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ({"said": NOT_READY}, "groups: not joined yet: source; mongo: it doesn't answer"),
        ({"said": "an odd page"}, "an odd page"),
        ({"problem": "not running"}, "not running"),
        ({}, "starting"),
    ],
)
def test_why_a_worker_is_not_ready(detail, words):
    """The worker's own words come first, then what is known of its process."""
    assert _why_not_ready(detail) == words


async def test_work_that_ends_first_is_left_alone():
    """What has ended before the process is told to end has its result."""
    work = asyncio.create_task(asyncio.sleep(0, "result"))
    assert await _ended_before(work, asyncio.Event())
    assert work.result() == "result"


def test_ctrl_c_ends_a_start_of_the_local_services(monkeypatch, tmp_path, capsys):
    """SIGINT while Kafka and MongoDB start undoes the start and ends with 0, without waiting for them."""
    undone = []

    async def start_slowly(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            undone.append(True)
            raise

    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISPATCHER_LOCAL_DIR", str(tmp_path))
    monkeypatch.setattr(running, "start_local", start_slowly)
    assert running.run(local=True, workers=1) == 0
    assert undone == [True]
    assert "Stopping what was being started" in capsys.readouterr().out
