"""`dispatcher backfill`: send a webhook the events of a time that it never got, as a job that workers go through."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import click

from dispatcher.api.replays import replay_answer
from dispatcher.app import backfill as backfilling
from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import EXIT_FAILED, example, json_option, run_async
from dispatcher.cli.output import print_json
from dispatcher.cli.rate import Rate
from dispatcher.cli.replay_progress import Show, replay_progress
from dispatcher.config import Need
from dispatcher.core.errors import ConflictError, DispatcherError
from dispatcher.core.reruns import UNFINISHED, ReplayJob, ReplayStatus
from dispatcher.operations.replays import MAX_RATE, MIN_RATE
from dispatcher.operations.times import rfc3339
from dispatcher.settings import Settings

LOOK_SECONDS = 0.5
LONELY_LOOKS = 20
"""After so many looks at a job that nobody takes it is said that a worker is needed."""

_UNITS = "records gone through"


@click.command(
    epilog=example(
        "dispatcher backfill --subscription wh_5c8r1k2m9x7d3f6h4j8k2n5p7q --since 2026-01-15T10:00:00Z --rate 50/s",
        "dispatcher backfill --follow rpl_06b2m5q0000g8v4k2j7d1s9c3x",
        "dispatcher backfill --cancel rpl_06b2m5q0000g8v4k2j7d1s9c3x",
    )
)
@click.option("--subscription", metavar="WH", help="The webhook; it must be active.")
@click.option("--since", metavar="TIME", help="The first time that counts, such as 2026-01-15T10:30:00Z.")
@click.option("--until", metavar="TIME", help="The first time that doesn't count; without it, now.")
@click.option(
    "--rate",
    type=Rate(MIN_RATE, MAX_RATE),
    metavar="N/s",
    help=f"Deliveries a second, at most; {MAX_RATE}/s without it.",
)
@click.option("--wait/--no-wait", default=True, help="Wait until it is done (the default), or leave it to the workers.")
@click.option(
    "--on-interrupt",
    type=click.Choice(["leave", "cancel"]),
    default="leave",
    show_default=True,
    help="What Ctrl-C does: the job goes on without this command, or ends.",
)
@click.option("--follow", metavar="RPL", help="Wait for a job that was made before.")
@click.option("--cancel", metavar="RPL", help="End a job that was made before; what it produced still goes out.")
@json_option
@click.pass_context
def backfill(
    ctx: click.Context,
    *,
    subscription: str | None,
    since: str | None,
    until: str | None,
    rate: float | None,
    wait: bool,
    on_interrupt: str,
    follow: str | None,
    cancel: str | None,
    as_json: bool,
) -> None:
    """Send a webhook the events of a time range that it never got: those that are still on the source topics.

    For a new webhook, or one that was inactive or disabled. It alone gets them, with the delivery ids that they have
    anyway: what its delivery log holds already is not sent again. Workers go through the job, whatever becomes of this
    command; Ctrl-C leaves it running and says so. Exit code 0: done (or made, with --no-wait); 1: not.
    """
    if sum(each is not None for each in (subscription, follow, cancel)) != 1:
        raise click.UsageError("give one of --subscription (with --since), --follow and --cancel")
    if subscription is not None and since is None:
        raise click.UsageError("--since is missing: from when on? Such as --since 2026-01-15T10:30:00Z")
    if subscription is None and any(each is not None for each in (since, until, rate)):
        raise click.UsageError("--since, --until and --rate go with --subscription only")
    settings = resolve_settings((Need.MONGO,))
    configure_for_command(settings.log)
    wanted = None if subscription is None or since is None else (subscription, since, until, rate)
    job = run_async(_work(settings, wanted, follow, cancel, wait=wait, ends=on_interrupt == "cancel"))
    _show(job, as_json=as_json)
    succeeds = job.status is ReplayStatus.DONE or (not wait and job.status in UNFINISHED)
    ctx.exit(0 if succeeds or cancel is not None else EXIT_FAILED)


async def _work(
    settings: Settings,
    wanted: tuple[str, str, str | None, float | None] | None,
    follow: str | None,
    cancel: str | None,
    *,
    wait: bool,
    ends: bool,
) -> ReplayJob:
    async with backfilling.open_backfills(settings) as jobs:
        if cancel is not None:
            return await jobs.cancel(cancel)
        if wanted is None:
            job = await jobs.find(follow or "")
        else:
            job = await jobs.make(*wanted)
            span = f"from {rfc3339(job.since_ms)} to {rfc3339(job.until_ms)}"
            click.echo(f"{job.id}: events {span} for {job.subscription_id} of {job.workspace_id}", err=True)
        if not wait:
            return job
        with _interrupts() as stop, replay_progress() as show:
            job = await _until_ended(jobs, job, show, stop)
        if job.status not in UNFINISHED:
            return job
        if ends:
            with contextlib.suppress(ConflictError):
                return await jobs.cancel(job.id)
            return await jobs.find(job.id)
        click.echo(f"{job.id} goes on without this command; {_further(job.id)}", err=True)
        return job


@contextlib.contextmanager
def _interrupts() -> Iterator[asyncio.Event]:
    """Give what Ctrl-C and SIGTERM set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _until_ended(jobs: backfilling.Backfills, job: ReplayJob, show: Show, stop: asyncio.Event) -> ReplayJob:
    """Look at a job until it has ended, or until this command is to end; shows how far it is."""
    looks = 0
    while job.status in UNFINISHED and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        try:
            job = await jobs.find(job.id)
        except DispatcherError:
            click.echo(f"{job.id} may go on; {_further(job.id)}", err=True)
            raise
        looks += 1
        if job.selected is not None:
            show(_UNITS, sum(job.counts), job.selected)
        elif looks == LONELY_LOOKS:
            click.echo(f"{job.id} waits for a worker; is one running? (dispatcher worker, dispatcher run)", err=True)
    return job


def _further(job_id: str) -> str:
    return f"watch it with: dispatcher backfill --follow {job_id}, end it with: dispatcher backfill --cancel {job_id}"


def _show(job: ReplayJob, *, as_json: bool) -> None:
    if as_json:
        print_json(replay_answer(job).model_dump(mode="json"))
        return
    counts = job.counts
    click.echo(
        f"{job.id} is {job.status}: {counts.produced:,} sent, {counts.gone:,} kept no more, "
        f"{counts.skipped:,} records not for it or in its delivery log already"
    )
    if job.error:
        click.echo(f"Error: {job.error}", err=True)
