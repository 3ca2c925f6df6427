"""What all commands share: late imports, one-sentence errors with their exit codes, and running coroutines."""

import asyncio
import importlib
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import click

from dispatcher.core.errors import DispatcherError, InvalidInputError, SettingsError
from dispatcher.core.masking import legible

T = TypeVar("T")

EXIT_FAILED = 1
EXIT_USAGE = 2


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and whose errors end in a sentence.

    Args:
        commands_at: Name to `module:attribute` and the line in the help.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of the table."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """Import a command; None where there is none of that name."""
        if cmd_name not in self._commands_at:
            return None
        module, _, attribute = self._commands_at[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._commands_at.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what this package raises on purpose is printed without a traceback."""
        try:
            return super().invoke(ctx)
        except DispatcherError as error:
            for line in str(error).splitlines():
                click.echo(f"Error: {legible(line)}", err=True)
            ctx.exit(EXIT_USAGE if isinstance(error, (SettingsError, InvalidInputError)) else EXIT_FAILED)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    return asyncio.run(work)


def example(*lines: str) -> str:
    """Return a help epilogue with command lines that can be copied."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\b\n" + "\n".join((title, *(f"  {line}" for line in lines)))


def json_option(function: Any) -> Any:
    """Add `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(function)
