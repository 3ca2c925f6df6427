"""How far a replay is, on standard error: bars with rate and time left on a terminal, else lines every now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 5.0
"""So often a line is written where standard error is no terminal."""

Show = Callable[[str, int, int], None]
"""Is given what is being done, how much of it is done, and of how much."""


@contextmanager
def replay_progress(*, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Show how far the steps of a replay are, one after the other.

    Args:
        terminal: Whether standard error is a terminal; None: find out.
        clock: Seconds that never go back.
    """
    if terminal is None:
        terminal = sys.stderr.isatty()
    if not terminal:
        yield _Lines(clock).show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        steps: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in steps:
                steps[step] = bars.add_task(step, total=total)
            bars.update(steps[step], completed=done, total=total)

        yield show


class _RateColumn(ProgressColumn):
    """Shows how many are done a second."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class _Lines:
    """Writes lines: with rate and time left, every few seconds and at the end of a step that took longer than that.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._step = ""
        self._began = self._told = 0.0
        self._first = 0

    def show(self, step: str, done: int, total: int) -> None:
        """Take note of how far a step is."""
        now = self._clock()
        if step != self._step:
            self._step, self._began, self._told, self._first = step, now, now, done
        took = now - self._began
        if now - self._told < LINE_SECONDS and not (done >= total and took >= LINE_SECONDS):
            return
        self._told = now
        rate = (done - self._first) / took if took > 0 else 0.0
        left = f", about {(total - done) / rate:,.0f} s left" if rate and done < total else ""
        click.echo(f"{done:,} of {total:,} {step}, {rate:,.0f}/s{left}", err=True)
