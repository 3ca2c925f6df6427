"""`dispatcher secrets`: seal the stored secrets with a new encryption key."""

from collections.abc import Callable
from typing import Any

import click

from dispatcher.app.key_rotation import key_rotation
from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import EXIT_FAILED, example, json_option, run_async
from dispatcher.cli.output import print_json, print_table
from dispatcher.config import Need
from dispatcher.operations.key_rotation import KeyRotated, KeySurvey
from dispatcher.settings import Settings

_TOLD_EVERY = 10_000


@click.group(epilog=example("dispatcher secrets rotate-key --dry-run"))
def secrets() -> None:
    """Seal the stored secrets with a new encryption key."""


@secrets.command(
    "rotate-key", epilog=example("dispatcher secrets rotate-key --dry-run", "dispatcher secrets rotate-key")
)
@click.option("--dry-run", is_flag=True, help="Only count which key has sealed how many secrets.")
@json_option
@click.pass_context
def rotate_key(ctx: click.Context, *, dry_run: bool, as_json: bool) -> None:
    """Seal every stored secret with the first of DISPATCHER_ENCRYPTION_KEYS, whichever key sealed it before.

    Put the new key in front of the others on every worker and API first (deploy/README.md says how); deliveries and the
    API go on meanwhile. It can be broken off and run again. Exit code 1 while some secrets need another key.
    """
    settings = resolve_settings((Need.MONGO, Need.ENCRYPTION_KEYS))
    configure_for_command(settings.log)
    done, survey = run_async(_work(settings, _teller(), dry_run=dry_run))
    if as_json:
        print_json(_json(done, survey))
    else:
        _print(done, survey)
    ctx.exit(0 if survey.is_done else EXIT_FAILED)


async def _work(
    settings: Settings, tell: Callable[[int], None], *, dry_run: bool
) -> tuple[KeyRotated | None, KeySurvey]:
    async with key_rotation(settings) as rotation:
        if dry_run:
            return None, await rotation.survey(tell)
        done = await rotation.rotate(tell=tell)
        return done, done.survey


def _teller() -> Callable[[int], None]:
    told = 0

    def tell(seen: int) -> None:
        nonlocal told
        if seen - told >= _TOLD_EVERY:
            told = seen
            click.echo(f"{seen:,} webhooks looked at", err=True)

    return tell


def _json(done: KeyRotated | None, survey: KeySurvey) -> dict[str, Any]:
    return {
        "sealed_anew": 0 if done is None else done.values,
        "webhooks_changed": 0 if done is None else done.webhooks,
        "webhooks": survey.webhooks,
        "keys": [{"id": key_id, "secrets": count} for key_id, count in survey.values.items()],
        "not_opened": survey.closed,
        "unreadable_webhooks": survey.unreadable,
        "named": list(survey.named),
        "done": survey.is_done,
    }


def _print(done: KeyRotated | None, survey: KeySurvey) -> None:
    if done is not None:
        click.echo(f"sealed anew: {done.values:,} secrets of {done.webhooks:,} webhooks")
    rows = [
        [key_id, "seals and opens" if number == 0 else "only opens", f"{count:,}"]
        for number, (key_id, count) in enumerate(survey.values.items())
    ]
    print_table(("key", "use", "secrets"), rows)
    for line in _advice(survey, was_dry=done is None):
        click.echo(line, err=True)


def _advice(survey: KeySurvey, *, was_dry: bool) -> list[str]:
    """Say what to do next."""
    lines = []
    if survey.closed or survey.unreadable:
        lines.append(
            f"Error: {survey.closed:,} secrets are opened by no key of DISPATCHER_ENCRYPTION_KEYS, and "
            f"{survey.unreadable:,} webhooks can't be read: {', '.join(survey.named)}; add the key that sealed them, "
            "or set the secrets anew (rotate-secret, api_key), or delete the webhooks"
        )
    if survey.former and was_dry:
        lines.append(f"{survey.former:,} secrets are sealed with another key than the first: run it without --dry-run")
    elif survey.former:
        lines.append(
            f"Error: {survey.former:,} secrets are sealed with another key than the first again: some process has "
            "other keys, or another order; start all of them with the new key in front, then run this again"
        )
    if survey.is_done and len(survey.values) > 1:
        lines.append(
            "every secret is sealed with the first key: take the others out of DISPATCHER_ENCRYPTION_KEYS when 24 "
            "hours have passed since the last process began to use it; until then answers kept for Idempotency-Key "
            "and console sessions need them"
        )
    elif survey.is_done:
        lines.append("only one key is set, and it has sealed every secret; put a new one in front of it to change it")
    return lines
