"""The options that say which dead letters a command is about: the same ones for each."""

import functools
import re
import time
from collections.abc import Callable
from typing import Any

import click

from dispatcher.core.dead_letters import UNREADABLE, DeadLetterFilter, statuses
from dispatcher.core.matching import is_pattern
from dispatcher.core.model import DeadLetterReason
from dispatcher.operations.times import parse_rfc3339

_TIME = "a time such as 2026-01-15T10:30:00Z, or how long ago: 90m, 2h, 3d"
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_REASONS = (*DeadLetterReason, UNREADABLE)


def letter_filter(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters to a command, which is given them as `wanted`."""

    @functools.wraps(command)
    def filtered(**given: Any) -> Any:
        names = ("workspace", "subscription", "type", "reason", "status", "since", "until")
        workspace, subscription, event_type, reason, status, since, until = [
            given.pop(f"only_{name}") for name in names
        ]
        wanted = DeadLetterFilter(
            workspace,
            subscription,
            _type(event_type),
            _reason(reason),
            _status(status),
            _time("--since", since),
            _time("--until", until),
        )
        return command(wanted=wanted, **given)

    for name, metavar, text in reversed(
        (
            ("workspace", "W", "Only of this workspace."),
            ("subscription", "WH", "Only of this webhook."),
            ("type", "T", "Only of this event type, or of all below one: user.*."),
            ("reason", "R", "Only for this reason, such as attempts_exhausted."),
            ("status", "CODE", "Only with this status code, a class of them such as 5xx, or none."),
            ("since", "TIME", f"Only those that are dead letters since then: {_TIME}."),
            ("until", "TIME", "Only those that were dead letters before then, likewise."),
        )
    ):
        filtered = click.option(f"--{name}", f"only_{name}", metavar=metavar, help=text)(filtered)
    return filtered


def _type(given: str | None) -> str | None:
    if given is not None and (given == "*" or not is_pattern(given)):
        raise click.UsageError("--type: write an event type such as user.created, or user.* for all below it")
    return given


def _reason(given: str | None) -> str | None:
    if given is not None and given not in _REASONS:
        raise click.UsageError(f"--reason: write one of {', '.join(_REASONS)}")
    return given


def _status(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        statuses(given)
    except ValueError as error:
        raise click.UsageError(f"--status: {error}") from None
    return given.lower()


def _time(option: str, given: str | None) -> int | None:
    if given is None:
        return None
    ago = _AGO.fullmatch(given)
    if ago is not None:
        return int((time.time() - int(ago[1]) * _SECONDS[ago[2]]) * 1000)
    try:
        return parse_rfc3339(given)
    except ValueError:
        raise click.UsageError(f"{option}: write {_TIME}") from None
