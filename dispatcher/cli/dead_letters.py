"""`dispatcher dead-letters`: what is on the dead-letter topic, one letter in full, and marking letters as handled."""

import gc
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import click

from dispatcher.app.dead_letter_view import LetterView, ShownLetter
from dispatcher.app.dead_letters import Purged, Survey, TopicLetters, open_letters, total
from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import EXIT_USAGE, example, json_option, run_async
from dispatcher.cli.dead_letter_replay import replay
from dispatcher.cli.letter_filter import letter_filter
from dispatcher.cli.letter_lines import letter_json, letter_lines
from dispatcher.cli.output import print_strange_json
from dispatcher.cli.replay_progress import Show, replay_progress
from dispatcher.cli.survey_lines import survey_json, survey_lines
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.reruns import SourceSpan
from dispatcher.settings import Settings

_GC_THRESHOLDS = (50_000, 20, 50)
_READING = "dead letters read"
_MARKING = "dead letters gone through to mark them"


@click.group(
    "dead-letters",
    epilog=example(
        "dispatcher dead-letters list --since 2026-01-15T00:00:00Z",
        "dispatcher dead-letters show del_4tq2m6zc1xw8s0v5b9n3k7h2ya",
        "dispatcher dead-letters replay --subscription wh_5c8r1k2m9x7d3f6h4j8k2n5p7q --dry-run",
    ),
)
def dead_letters() -> None:
    """See what ended in the dead-letter topic, send it again, or mark it as handled."""


dead_letters.add_command(replay)


@dead_letters.command(
    "list",
    epilog=example(
        "dispatcher dead-letters list",
        "dispatcher dead-letters list --workspace acme --status 5xx --since 2026-01-15T00:00:00Z",
    ),
)
@letter_filter
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="As many rows of each count.")
@click.option("--newest", type=click.IntRange(0, 1000), default=5, show_default=True, help="As many letters by name.")
@click.option("--all", "handled_too", is_flag=True, help="Also what was replayed or purged.")
@json_option
def list_command(*, wanted: DeadLetterFilter, top: int, newest: int, handled_too: bool, as_json: bool) -> None:
    """Count what is still to be dealt with, by reason, workspace, webhook, event type, status code and hour.

    Read from the topic itself, as it is when the command begins. Of more than one dead letter of a delivery, the newest
    counts. What was replayed or purged is left out.
    """
    settings = _settings()

    async def work(show: Show) -> Survey:
        async with open_letters(settings) as (letters, _):
            spans = await letters.snapshot(wanted)
            return await _surveyed(letters, spans, wanted, show, newest=newest, handled_too=handled_too)

    with replay_progress() as show:
        survey = run_async(work(show))
    if as_json:
        print_strange_json(survey_json(survey))
        return
    for line in survey_lines(survey, top):
        click.echo(line)


@dead_letters.command(
    "show",
    epilog=example(
        "dispatcher dead-letters show del_4tq2m6zc1xw8s0v5b9n3k7h2ya",
        "dispatcher dead-letters show webhooks.dead-letter-3-1042",
    ),
)
@click.argument("which", metavar="DELIVERY_ID|TOPIC-PARTITION-OFFSET")
@json_option
def show_command(*, which: str, as_json: bool) -> None:
    """Show one dead letter: headers, body, attempts, what the endpoint said, and how to replay it.

    Of a source record that is no event: what is wrong with it, and at which byte. Secrets are masked.
    """
    settings = _settings()

    async def work(show: Show) -> ShownLetter:
        async with AsyncExitStack() as stack:
            letters, connection = await stack.enter_async_context(open_letters(settings))
            view = LetterView(letters, connection, settings)
            letter = await view.find(which, lambda percent: show("% of the dead-letter topic read", percent, 100))
            return await view.show(letter)

    with replay_progress() as show:
        shown = run_async(work(show))
    if as_json:
        print_strange_json(letter_json(shown))
        return
    for line in letter_lines(shown, int(time.time() * 1000)):
        click.echo(line)


@dead_letters.command(
    "purge",
    epilog=example(
        "dispatcher dead-letters purge --subscription wh_5c8r1k2m9x7d3f6h4j8k2n5p7q",
        "dispatcher dead-letters purge --reason gone --until 2026-01-15T00:00:00Z --yes",
    ),
)
@letter_filter
@click.option("--yes", is_flag=True, help="Do it; without it, only say how many there are.")
@json_option
@click.pass_context
def purge(ctx: click.Context, *, wanted: DeadLetterFilter, yes: bool, as_json: bool) -> None:
    """Mark dead letters as handled: they leave the lists, and no replay takes them without --again.

    The records stay on the topic until they expire. A later dead letter of the same delivery is listed again.
    """
    settings = _settings()
    with replay_progress() as show:
        survey, purged = run_async(_purge(settings, wanted, show, yes=yes))
    chosen = survey.choice.counts.total
    if as_json:
        print_strange_json({"topic": survey.topic, "chosen": chosen, "purged": purged.deliveries if purged else 0})
    elif purged is None:
        click.echo("\n".join(survey_lines(survey, 5)))
    else:
        click.echo(f"marked as handled: {purged.deliveries:,}")
    if purged is None:
        click.echo(f"Nothing is marked: add --yes to mark these {chosen:,} as handled.", err=True)
        ctx.exit(EXIT_USAGE)


async def _purge(
    settings: Settings, wanted: DeadLetterFilter, show: Show, *, yes: bool
) -> tuple[Survey, Purged | None]:
    async with open_letters(settings) as (letters, _):
        spans = await letters.snapshot(wanted)
        survey = await _surveyed(letters, spans, wanted, show, newest=0)
        if not yes:
            return survey, None
        if not survey.choice.counts.total:
            return survey, Purged(0, 0)
        whole = total(spans)
        return survey, await letters.purge(spans, survey.choice, lambda done: show(_MARKING, done, whole))


async def _surveyed(
    letters: TopicLetters, spans: Sequence[SourceSpan], wanted: DeadLetterFilter, show: Show, **options: Any
) -> Survey:
    whole = total(spans)
    return await letters.survey(
        spans, wanted, lambda done: show(_READING, done, whole), examples=options.pop("newest"), **options
    )


def _settings() -> Settings:
    # Letters come and go by the hundred: looking for cycles as often as usual would cost a fifth of the time.
    gc.set_threshold(*_GC_THRESHOLDS)
    settings = resolve_settings()
    configure_for_command(settings.log)
    return settings
