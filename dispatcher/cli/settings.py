"""`dispatcher settings`: what holds, and what there is."""

from dataclasses import asdict

import click

from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import example, json_option
from dispatcher.cli.output import print_json, print_table
from dispatcher.config import describe, effective


def _reference() -> str:
    lines = [f"  {name}\n      {meaning}\n      default: {default}" for name, default, meaning in describe()]
    return "\n".join((example("dispatcher settings", "dispatcher settings --json"), "", "\b", "Settings:", *lines))


def markdown() -> str:
    """Return the reference of all settings as the README has it."""
    rows = [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in describe()]
    return "\n".join(("| setting | default | meaning |", "| --- | --- | --- |", *rows))


@click.command(epilog=_reference())
@json_option
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the reference that the README has.")
def settings(*, as_json: bool, as_markdown: bool) -> None:
    """Show every setting as it holds, and where it comes from; secrets are hidden."""
    if as_markdown:
        click.echo(markdown())
        return
    rows = effective(resolve_settings(()))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(("setting", "value", "from"), [(row.name, row.value or "-", row.origin) for row in rows])
