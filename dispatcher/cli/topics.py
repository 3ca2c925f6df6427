"""`dispatcher topics`: make the own topics, or compare them with the settings."""

import click

from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import EXIT_FAILED, example, json_option, run_async
from dispatcher.cli.output import print_json
from dispatcher.config import Need
from dispatcher.core.errors import TopicsError
from dispatcher.kafka.topics import check, ensure


@click.group(epilog=example("dispatcher topics ensure", "dispatcher topics check"))
def topics() -> None:
    """Make the own topics, or say what differs."""


@topics.command("ensure", epilog=example("dispatcher topics ensure"))
@json_option
def ensure_command(*, as_json: bool) -> None:
    """Make the own topics that are missing and mend those that differ; source topics are left alone."""
    settings = resolve_settings((Need.KAFKA,))
    configure_for_command(settings.log)
    done = run_async(ensure(settings.kafka, settings.topics))
    if as_json:
        print_json({"done": done})
        return
    for line in done or ["nothing to do"]:
        click.echo(line)


@topics.command("check", epilog=example("dispatcher topics check --json"))
@json_option
@click.pass_context
def check_command(ctx: click.Context, *, as_json: bool) -> None:
    """Compare the topics with the settings; exit code 1 where they differ."""
    settings = resolve_settings((Need.KAFKA,))
    configure_for_command(settings.log)
    problems = run_async(check(settings.kafka, settings.topics))
    if as_json:
        print_json({"ok": not problems, "problems": problems})
        ctx.exit(EXIT_FAILED if problems else 0)
    if problems:
        raise TopicsError(problems)
    click.echo("the topics are as they should be")
