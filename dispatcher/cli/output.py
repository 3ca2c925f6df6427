"""What commands print: JSON, tables, and how far long work has come."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dispatcher.core.masking import legible

_PLAIN_STEPS = 10
_WORTH_TELLING = 1_000


def print_json(value: Any) -> None:
    """Print a JSON value, indented."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_strange_json(value: Any) -> None:
    """Print a JSON value that strangers' texts are in: in ASCII, so that nothing in it moves a cursor."""
    text = json.dumps(value, indent=2)
    click.echo(text.replace("\x7f", "\\u007f"))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its widest cell; nothing is cut, so that it can be searched.

    What a terminal would obey is written out.
    """
    lines = [[legible(cell) for cell in line] for line in (heads, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def progress(total: int, label: str, *, terminal: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Show how far work has come, on standard error: a bar on a terminal, else a line for each tenth.

    Args:
        total: What is done at the end.
        label: What is being done: `events published`.
        terminal: Whether standard error is a terminal; None: find out.

    Yields:
        To be called with what is done so far.
    """
    if terminal is None:
        terminal = sys.stderr.isatty()
    if total < _WORTH_TELLING:
        yield lambda _done: None
    elif terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield _plain(total, label)


def _plain(total: int, label: str) -> Callable[[int], None]:
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        step = done * _PLAIN_STEPS // total
        if step > told:
            told = step
            click.echo(f"{done} of {total} {label}", err=True)

    return tell
