"""`dispatcher api-keys`: create, list and revoke."""

import datetime as dt
from typing import Any

import click

from dispatcher.app import key_access
from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import example, json_option, run_async
from dispatcher.cli.output import print_json, print_table
from dispatcher.config import Need
from dispatcher.operations.api_keys import CreatedApiKey
from dispatcher.operations.times import parse_rfc3339
from dispatcher.ports import ApiKey
from dispatcher.settings import Settings

_WORKSPACE_HELP = "Only keys of this workspace; without it, of any."


@click.group("api-keys", epilog=example("dispatcher api-keys create --workspace acme --scope read,write"))
def api_keys() -> None:
    """Create, list and revoke API keys."""


@api_keys.command(epilog=example("dispatcher api-keys create --workspace acme --name ci --scope read,write"))
@click.option("--workspace", required=True, metavar="W", help="Workspace that the key is for.")
@click.option("--name", metavar="N", help="What the key is called in lists.")
@click.option(
    "--scope", default="read,write", show_default=True, metavar="LIST", help="Some of read,write,admin, with commas."
)
@click.option("--expires-at", metavar="TIME", help="When it ends, such as 2030-01-15T10:30:00Z; without it, never.")
@json_option
def create(*, workspace: str, name: str | None, scope: str, expires_at: str | None, as_json: bool) -> None:
    """Create a key and print it: the only time that it is shown."""
    scopes = [part.strip() for part in scope.split(",") if part.strip()]
    expires_at_ms = None if expires_at is None else _milliseconds(expires_at)

    async def work(settings: Settings) -> CreatedApiKey:
        async with key_access.api_keys(settings) as keys:
            return await keys.create(workspace, name, scopes, expires_at_ms)

    created = run_async(work(_settings()))
    if as_json:
        print_json({**_shown(created.key), "key": created.plaintext})
        return
    click.echo(f"API key {created.key.id} for workspace {workspace}; it is not shown again:", err=True)
    click.echo(created.plaintext)


@api_keys.command("list", epilog=example("dispatcher api-keys list --workspace acme"))
@click.option("--workspace", metavar="W", help=_WORKSPACE_HELP)
@json_option
def list_command(*, workspace: str | None, as_json: bool) -> None:
    """List the keys, newest first, without their secret part."""

    async def work(settings: Settings) -> list[ApiKey]:
        async with key_access.api_keys(settings) as keys:
            return list(await keys.list(workspace))

    rows = [_shown(key) for key in run_async(work(_settings()))]
    if as_json:
        print_json({"data": rows})
        return
    heads = ("id", "workspace_id", "name", "scopes", "created_at", "last_used_at", "expires_at")
    table = [["-" if row[h] is None else ",".join(row[h]) if h == "scopes" else row[h] for h in heads] for row in rows]
    print_table(heads, table)


@api_keys.command(epilog=example("dispatcher api-keys revoke key_4tq2m6zc1xw8s0v5b9n3k7h2ya"))
@click.argument("key_id")
@click.option("--workspace", metavar="W", help=_WORKSPACE_HELP)
def revoke(*, key_id: str, workspace: str | None) -> None:
    """Revoke a key: it is refused within a second."""

    async def work(settings: Settings) -> None:
        async with key_access.api_keys(settings) as keys:
            await keys.revoke(workspace, key_id)

    run_async(work(_settings()))
    click.echo(f"revoked {key_id}")


def _settings() -> Settings:
    settings = resolve_settings((Need.MONGO,))
    configure_for_command(settings.log)
    return settings


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "workspace_id": key.workspace_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": _time(key.created_at_ms),
        "last_used_at": _time(key.last_used_at_ms),
        "expires_at": _time(key.expires_at_ms),
    }


def _milliseconds(expires_at: str) -> int:
    try:
        return parse_rfc3339(expires_at)
    except ValueError as error:
        raise click.UsageError(f"--expires-at: {error}") from None


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
