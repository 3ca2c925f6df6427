"""Commands: each file is one group, and holds no logic of its own.

Only the command that is called is imported: `dispatcher --help` reads the table below.
"""

import click

from dispatcher.cli.command_line import LazyGroup

COMMANDS = {
    "run": ("dispatcher.cli.roles:run", "Run API, console and workers; --local brings Kafka and MongoDB along."),
    "worker": ("dispatcher.cli.roles:worker", "Run one worker: consume and deliver."),
    "api": ("dispatcher.cli.roles:api", "Run the REST API and the console."),
    "topics": ("dispatcher.cli.topics:topics", "Make the own topics, or say what differs."),
    "api-keys": ("dispatcher.cli.api_keys:api_keys", "Create, list and revoke API keys."),
    "secrets": ("dispatcher.cli.secrets:secrets", "Seal the stored secrets with a new encryption key."),
    "publish": ("dispatcher.cli.publish:publish", "Put events on the source topic."),
    "dead-letters": ("dispatcher.cli.dead_letters:dead_letters", "Look into dead letters; replay or purge them."),
    "backfill": ("dispatcher.cli.backfill:backfill", "Send a webhook the events of a time that it never got."),
    "receive": ("dispatcher.cli.roles:receive", "Show and verify the webhooks that arrive: an endpoint to try with."),
    "openapi": ("dispatcher.cli.openapi:openapi", "Print the REST API's OpenAPI document."),
    "metrics": ("dispatcher.cli.metrics:metrics", "List every metric of the metrics page."),
    "settings": ("dispatcher.cli.settings:settings", "Show the settings as they hold."),
    "demo": ("dispatcher.cli.roles:demo", "Tell the whole story in a terminal, in under a minute."),
}
"""Name to where the command is, and its line in the help; in the order of the help."""


@click.group(
    cls=LazyGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nExamples:\n  dispatcher run --local\n  dispatcher publish --type user.created",
)
@click.version_option(package_name="webhook-dispatcher", prog_name="dispatcher")
def main() -> None:
    """Deliver domain events from Kafka as signed webhooks.

    Settings come from the environment (DISPATCHER_*); `dispatcher settings --help` lists them. Exit codes:
    0 done, 1 failed, 2 wrong usage or settings.
    """
