"""`dispatcher dead-letters replay`: send dead letters again, and go on with that after it was stopped."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import click

from dispatcher.app.dead_letter_replays import dead_letter_replays
from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import EXIT_FAILED, example, json_option, run_async
from dispatcher.cli.letter_filter import letter_filter
from dispatcher.cli.output import print_json, print_strange_json, print_table
from dispatcher.cli.rate import Rate
from dispatcher.cli.replay_progress import Show, replay_progress
from dispatcher.core.dead_letter_replays import DEFAULT_RATE, Fate, LetterReplay, ReplayChoice, ReplayStage
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.pipeline.dead_letter_plan import Plan, refusal
from dispatcher.pipeline.dead_letter_replay import DeadLetterReplays
from dispatcher.settings import Settings

_WORDS = {
    Fate.REPLAYED: "replayed",
    Fate.HANDLED: "replayed or purged before",
    Fate.DELIVERED: "delivered since",
    Fate.UNDER_WAY: "under way again",
    Fate.SUPERSEDED: "superseded by a later run",
    Fate.WEBHOOK_DELETED: "webhook deleted",
    Fate.WEBHOOK_INACTIVE: "webhook not active",
    Fate.MISMATCH: "of another workspace than the webhook",
    Fate.NO_EVENT: "no event: see --as-event",
    Fate.NO_RECORD: "no source record: replay it without --as-event",
    Fate.GONE: "event no longer on its topic",
    Fate.UNREADABLE: "can't be read",
    Fate.STILL_BAD: "still no event",
    Fate.UNWANTED: "no active webhook wants it",
    Fate.REFUSED: "refused by Kafka",
}


@dataclass(slots=True)
class _Interrupt:
    """What Ctrl-C (or SIGTERM) does: the first ends the replay after the batch in hand, the second ends it at once.

    Attributes:
        stop: Set by the first.
        replay_id: The replay in hand; empty before there is one, when the first ends everything at once.
    """

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    replay_id: str = ""

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take signals; what is ended at once ends in `click.Abort`."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupted() -> None:
            if task is not None and (self.stop.is_set() or not self.replay_id):
                task.cancel()
                return
            click.echo("ending after the batch in hand; Ctrl-C again ends at once", err=True)
            self.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        try:
            yield
        except asyncio.CancelledError:
            raise click.Abort from None
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@click.command(
    "replay",
    epilog=example(
        "dispatcher dead-letters replay --subscription wh_5c8r1k2m9x7d3f6h4j8k2n5p7q --dry-run",
        "dispatcher dead-letters replay --workspace acme --reason attempts_exhausted --since 2026-01-15T10:00:00Z",
        "dispatcher dead-letters replay --resume rpl_06b2m5q0000g8v4k2j7d1s9c3x",
    ),
)
@letter_filter
@click.option("--dry-run", is_flag=True, help="Only show how many would go where.")
@click.option(
    "--rate", type=Rate(), metavar="N/s", help=f"Deliveries a second, at most; {DEFAULT_RATE:.0f}/s without it."
)
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="So many dead letters at most.")
@click.option("--to-subscription", metavar="WH", help="To this webhook of the same workspace, not to each one's own.")
@click.option(
    "--reset-attempts/--keep-attempts",
    default=True,
    help="Begin the retry schedule anew (the default), or count on from the attempts made; one is made in any case.",
)
@click.option("--as-event", is_flag=True, help="Read source records that were no events again; send what they are now.")
@click.option("--again", is_flag=True, help="Also what was replayed, purged or delivered before, or is under way.")
@click.option("--resume", metavar="RPL", help="Go on with this replay; of the other options, only --rate goes with it.")
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    wanted: DeadLetterFilter,
    dry_run: bool,
    rate: float | None,
    most: int | None,
    to_subscription: str | None,
    reset_attempts: bool,
    as_event: bool,
    again: bool,
    resume: str | None,
    as_json: bool,
) -> None:
    """Send dead letters again, as runs of their own: to the replay topic, which workers read beside all else.

    While other deliveries have work, each worker takes up 320 replays a second at most, so that those lose no time.

    What is on the dead-letter topic when it begins is what it is about. Ctrl-C ends it after the batch in hand and says
    how to go on; after a crash, go on in the same way. What was delivered since, or is under way, is left out. Where
    an earlier replay with the same filters (but for the times) and target sent all of it, or is not done with it, this
    is refused without --again.

    --as-event is for source records that were no events. They never change; what may be mended is how they are read: by
    a newer version, a raised DISPATCHER_MAX_EVENT_BYTES, a default workspace, a changed catalogue. Each goes to the
    webhooks that want it and never got it. Where the publisher sends the event anew instead, purge the old letter.
    """
    choice = ReplayChoice(wanted, to_subscription, as_event, not reset_attempts, again, rate or DEFAULT_RATE, most)
    if resume is not None and (dry_run or replace(choice, rate=DEFAULT_RATE) != ReplayChoice(DeadLetterFilter())):
        raise click.UsageError("--resume goes on as the replay was begun; give it alone, or with --rate")
    if as_event and (wanted.subscription_id or wanted.status):
        raise click.UsageError(
            "--as-event is for source records that were no events: they have no webhook and no status; "
            "leave --subscription and --status out (--to-subscription sends to one webhook alone)"
        )
    settings = resolve_settings()
    configure_for_command(settings.log)
    if resume is not None:
        ended = run_async(_resume(settings, resume, rate, as_json=as_json))
    else:
        ended = run_async(_replay(settings, choice, dry_run=dry_run, as_json=as_json))
    ctx.exit(0 if ended else EXIT_FAILED)


async def _replay(settings: Settings, choice: ReplayChoice, *, dry_run: bool, as_json: bool) -> bool:
    """Plan, and do it unless that was all; says whether all is done."""
    interrupt = _Interrupt()
    async with dead_letter_replays(settings) as replays:
        with interrupt.caught(), replay_progress() as show:
            plan = await replays.plan(choice, show)
            nothing = not plan.of(Fate.REPLAYED) and not plan.is_repetition
            begun = None if dry_run or nothing else await replays.begin(plan)
            if begun is not None:
                click.echo(
                    f"replaying as {begun.id}; should this be interrupted: {_resume_command(begun.id)}", err=True
                )
                ended = await _until_ended(replays, begun, interrupt, show, plan)
    if begun is None:
        _show_plan(plan, as_json=as_json)
        return True
    return _show_end(ended, as_json=as_json)


async def _resume(settings: Settings, replay_id: str, rate: float | None, *, as_json: bool) -> bool:
    interrupt = _Interrupt()
    async with dead_letter_replays(settings) as replays:
        with interrupt.caught(), replay_progress() as show:
            begun = await replays.take_over(replay_id)
            if rate is not None:
                begun = replace(begun, choice=replace(begun.choice, rate=rate))
            ended = await _until_ended(replays, begun, interrupt, show, None)
    return _show_end(ended, as_json=as_json)


async def _until_ended(
    replays: DeadLetterReplays, begun: LetterReplay, interrupt: _Interrupt, show: Show, plan: Plan | None
) -> LetterReplay:
    """Run a replay; where it comes to another end, say how to go on."""
    interrupt.replay_id = begun.id

    def told(replay: LetterReplay) -> None:
        show("dead letters replayed", replay.replayed, replay.selected)

    try:
        if plan is not None:
            return await replays.run(begun, plan.letters, told, interrupt.stop)
        return await replays.resume(begun, show, told, interrupt.stop)
    except BaseException:
        click.echo(f"{begun.id} is not done; go on with: {_resume_command(begun.id)}", err=True)
        raise


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    rows = [
        {"workspace_id": workspace or None, "subscription_id": webhook or None, "fate": fate.value, "count": count}
        for (workspace, webhook, fate), count in sorted(plan.counts.items())
    ]
    would = plan.of(Fate.REPLAYED)
    if as_json:
        print_strange_json(
            {
                "chosen": plan.chosen,
                "would_replay": would,
                "deliveries": plan.deliveries,
                "rows": rows,
                "repeats": dict(plan.repeated),
            }
        )
        return
    if rows:
        table = [
            (
                workspace or "-",
                webhook or "-",
                _WORDS[fate] if fate is not Fate.REPLAYED else "would be replayed",
                f"{count:,}",
            )
            for (workspace, webhook, fate), count in sorted(plan.counts.items())
        ]
        print_table(("workspace", "webhook", "what", "dead letters"), table)
    deliveries = f" ({plan.deliveries:,} deliveries)" if plan.choice.as_events else ""
    click.echo(f"{would:,} of {plan.chosen:,} dead letters would be replayed{deliveries}")
    if plan.is_repetition:
        click.echo(refusal(plan), err=True)


def _show_end(ended: LetterReplay, *, as_json: bool) -> bool:
    done = ended.stage is ReplayStage.DONE
    if as_json:
        fates = {fate.value: count for fate, count in ended.fates.items() if count}
        print_json({"replay_id": ended.id, "stage": ended.stage.value, "replayed": ended.replayed, "fates": fates})
    else:
        others = [
            f"{count:,} {_WORDS[fate]}" for fate, count in ended.fates.items() if fate is not Fate.REPLAYED and count
        ]
        rest = f"; left out: {', '.join(others)}" if others else ""
        click.echo(f"{ended.id} {'is done' if done else 'was stopped'}: {ended.replayed:,} dead letters replayed{rest}")
    if not done:
        click.echo(f"go on with: {_resume_command(ended.id)}", err=True)
    return done


def _resume_command(replay_id: str) -> str:
    return f"dispatcher dead-letters replay --resume {replay_id}"
