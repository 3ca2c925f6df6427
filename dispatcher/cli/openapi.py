"""`dispatcher openapi`: the API's document."""

import click
import orjson

from dispatcher.api.application import describe_api
from dispatcher.cli.command_line import example


def document() -> str:
    """Return the OpenAPI document as `schemas/openapi.json` has it."""
    return orjson.dumps(describe_api(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


@click.command(epilog=example("dispatcher openapi > schemas/openapi.json"))
def openapi() -> None:
    """Print the REST API's OpenAPI 3.1 document; nothing needs to run for it."""
    click.echo(document(), nl=False)
