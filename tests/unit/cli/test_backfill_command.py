# ruff: noqa: D102 - the fakes do what their names say
"""`dispatcher backfill`: what it makes, shows and leaves behind; the jobs are in memory."""

import json
import os
import signal
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
from click.testing import CliRunner

import dispatcher.cli.backfill as command
from dispatcher.app.backfill import Backfills
from dispatcher.cli import main
from dispatcher.config import describe
from dispatcher.core.errors import UnavailableError
from dispatcher.core.reruns import ReplayCounts, ReplayJob, ReplaySource, ReplayStatus, new_run_id
from dispatcher.operations.replays import Replays
from tests.fakes.api_stack import START_MS, ManualClock, draws
from tests.fakes.replays import MemoryReplays
from tests.fakes.stores import MemoryWebhookStore
from tests.unit.mongo.samples import webhook

SINCE, UNTIL = "2026-01-15T09:00:00Z", "2026-01-15T10:00:00Z"


class Jobs(MemoryReplays):
    """Jobs whose workers are a script: `steps` are what the next looks see."""

    def __init__(self):
        super().__init__(ManualClock())
        self.steps = []
        self.looks = 0

    async def find(self, replay_id):
        self.outage.check()
        self.looks += 1
        job = self.jobs.get(replay_id)
        if job is not None and self.steps:
            step = self.steps.pop(0)
            job = self.jobs[replay_id] = step(job) if callable(step) else replace(job, **step)
        return job


class Webhooks(MemoryWebhookStore):
    """Webhooks that can be found whatever their workspace."""

    async def find(self, webhook_id):
        found = self.webhooks.get(webhook_id)
        return None if found is None else found.subscription


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """Jobs and one active webhook, instead of MongoDB's."""
    for name, _, _ in describe():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPATCHER_LOCAL_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DISPATCHER_MONGO_URI", "mongodb://mongo")
    monkeypatch.setattr(command, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(command, "configure_for_command", lambda _log: None)
    made, store = Jobs(), Webhooks()
    known = webhook()
    subscription = replace(known.subscription, id="wh_1", workspace_id="acme", status="active")
    store.webhooks["wh_1"] = replace(known, subscription=subscription)
    made.store = store

    @asynccontextmanager
    async def opened(_settings):
        replays = Replays(made, store, made.clock, draws())
        yield Backfills(made, store, replays, START_MS)

    monkeypatch.setattr(command.backfilling, "open_backfills", opened)
    yield made
    structlog.reset_defaults()


def call(*arguments):
    return CliRunner().invoke(main, ("backfill", *arguments))


def done(produced, skipped=0, selected=None):
    """Give the step that ends a job."""
    total = produced + skipped if selected is None else selected
    return {"status": ReplayStatus.DONE, "counts": ReplayCounts(produced, 0, skipped), "selected": total}


def test_job_is_made_waited_for_and_told_of(jobs):
    """The job has what was asked for; once it is done, the counts are printed and the exit code is 0."""
    jobs.steps = [{"status": ReplayStatus.RUNNING, "selected": 12}, done(5, 7)]
    result = call("--subscription", "wh_1", "--since", SINCE, "--until", UNTIL, "--rate", "50/s")
    assert (result.exit_code, jobs.looks) == (0, 2)
    ((job_id, job),) = jobs.jobs.items()
    assert (job.source, job.subscription_id, job.workspace_id, job.rate) == (ReplaySource.EVENTS, "wh_1", "acme", 50.0)
    assert (job.until_ms - job.since_ms) == 3_600_000
    assert f"{job_id}: events from {SINCE} to {UNTIL} for wh_1 of acme" in result.stderr
    assert result.stdout.startswith(f"{job_id} is done: 5 sent, 0 kept no more, 7 records not for it")


def test_without_until_it_goes_up_to_now(jobs):
    """What is still to come is delivered anyway."""
    jobs.steps = [done(0)]
    assert call("--subscription", "wh_1", "--since", SINCE).exit_code == 0
    (job,) = jobs.jobs.values()
    assert (job.until_ms, job.rate) == (START_MS, None)


def test_job_can_be_left_to_the_workers(jobs):
    """--no-wait makes the job and says where it is, as JSON in the API's form."""
    result = call("--subscription", "wh_1", "--since", SINCE, "--no-wait", "--json")
    assert (result.exit_code, jobs.looks) == (0, 0)
    shown = json.loads(result.stdout)
    assert (shown["status"], shown["source"], shown["since"]) == ("pending", "events", SINCE)
    assert list(jobs.jobs) == [shown["id"]]


@pytest.mark.parametrize(
    ("status", "error"), [(ReplayStatus.FAILED, "the webhook was deleted"), (ReplayStatus.CANCELLED, "")]
)
def test_job_that_comes_to_another_end_fails_the_command(jobs, status, error):
    """A job that failed or was cancelled meanwhile is exit code 1, and its error is told."""
    jobs.steps = [{"status": status, "error": error, "selected": 3}]
    result = call("--subscription", "wh_1", "--since", SINCE)
    assert result.exit_code == 1
    assert f"is {status}" in result.stdout
    assert error in result.stderr


def interrupt(job):
    """Press Ctrl-C while a worker goes on."""
    os.kill(os.getpid(), signal.SIGINT)
    return replace(job, status=ReplayStatus.RUNNING, selected=10, counts=ReplayCounts(2, 0, 0))


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
@pytest.mark.parametrize(("option", "status"), [((), "running"), (("--on-interrupt", "cancel"), "cancelled")])
def test_interrupted_it_leaves_the_job_or_ends_it(jobs, option, status):
    """Ctrl-C leaves the job running and says how to go on, or cancels it where that was asked for."""
    jobs.steps = [interrupt]
    result = call("--subscription", "wh_1", "--since", SINCE, *option)
    ((job_id, job),) = jobs.jobs.items()
    assert (result.exit_code, job.status) == (1, status)
    assert f"is {status}" in result.stdout
    assert (f"dispatcher backfill --follow {job_id}" in result.stderr) == (status == "running")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_earlier_job_can_be_followed_and_ended(jobs):
    """--follow waits for one of any workspace, --cancel ends one; what is not there, or over, is said."""
    job = ReplayJob(
        new_run_id(START_MS, bytes(10)), "globex", "wh_9", 0, START_MS, None, START_MS, START_MS, source="events"
    )
    for status, arguments, code in (
        (ReplayStatus.RUNNING, ("--cancel", job.id), 0),
        (ReplayStatus.CANCELLED, ("--cancel", job.id), 1),
    ):
        jobs.jobs[job.id] = replace(job, status=status)
        assert call(*arguments).exit_code == code
    assert jobs.jobs[job.id].status == "cancelled"
    jobs.jobs[job.id] = replace(job, status=ReplayStatus.RUNNING)
    jobs.steps = [{}, {}, done(4)]
    result = call("--follow", job.id)
    assert (result.exit_code, "4 sent" in result.stdout) == (0, True)
    assert (call("--follow", "rpl_none").exit_code, "there is no replay" in call("--cancel", "rpl_none").stderr) == (
        1,
        True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--subscription", "wh_1"),
        ("--subscription", "wh_1", "--since", SINCE, "--follow", "rpl_1"),
        ("--follow", "rpl_1", "--rate", "5"),
        ("--cancel", "rpl_1", "--since", SINCE),
        ("--subscription", "wh_1", "--since", "yesterday"),
        ("--subscription", "wh_1", "--since", UNTIL, "--until", SINCE),
        ("--subscription", "wh_1", "--since", "2999-01-01T00:00:00Z"),
        *(("--subscription", "wh_1", "--since", SINCE, "--rate", rate) for rate in ("0", "101", "fast", "nan", "-5")),
    ],
)
def test_wrong_usage_is_exit_code_2_and_makes_nothing(jobs, arguments):
    """Options that don't go together, and values that are none, are the caller's fault."""
    result = call(*arguments)
    assert (result.exit_code, jobs.jobs) == (2, {})
    assert result.stderr


def test_webhook_that_would_get_nothing_is_refused_with_what_to_do(jobs):
    """An unknown webhook is named; of a disabled one it is said since when, and the command for afterwards."""
    unknown = call("--subscription", "wh_2", "--since", SINCE)
    assert (unknown.exit_code, "no webhook wh_2" in unknown.stderr) == (1, True)
    stored = jobs.store.webhooks["wh_1"]
    subscription = replace(stored.subscription, status="disabled")
    jobs.store.webhooks["wh_1"] = replace(
        stored, subscription=subscription, disabled_reason="failing", disabled_at_ms=START_MS - 3_600_000
    )
    result = call("--subscription", "wh_1", "--since", SINCE)
    assert (result.exit_code, jobs.jobs) == (1, {})
    assert "set its status to active first" in result.stderr
    assert "dispatcher backfill --subscription wh_1 --since 2026-01-15T09:30:00Z" in result.stderr


def test_nobody_who_takes_it_is_said(jobs, monkeypatch):
    """A job that stays pending tells that a worker is needed, once."""
    monkeypatch.setattr(command, "LONELY_LOOKS", 3)
    jobs.steps = [{}] * 8 + [done(1)]
    result = call("--subscription", "wh_1", "--since", SINCE)
    assert (result.exit_code, result.stderr.count("waits for a worker")) == (0, 1)


def test_outage_while_it_waits_ends_the_command_and_not_the_job(jobs):
    """With MongoDB away the command ends, having said that the job may go on and how to watch it."""

    def away(_job):
        raise UnavailableError("MongoDB is out of reach")

    jobs.steps = [{"selected": 5}, away]
    result = call("--subscription", "wh_1", "--since", SINCE)
    (job_id,) = jobs.jobs
    assert result.exit_code == 1
    assert f"{job_id} may go on" in result.stderr
    assert "Error: MongoDB is out of reach" in result.stderr
