"""`dispatcher publish`: events on the source topic, as a publisher would put them there."""

import click

from dispatcher.app import publish as publishing
from dispatcher.app.logging import configure_for_command
from dispatcher.app.resolve import resolve_settings
from dispatcher.cli.command_line import example, json_option, run_async
from dispatcher.cli.output import print_json, progress
from dispatcher.config import Need


@click.command(
    epilog=example(
        "dispatcher publish --type user.created",
        """dispatcher publish --type user.created --workspace acme --data '{"user": {"id": "usr_1"}}' --count 1000""",
    )
)
@click.option("--type", "event_type", required=True, metavar="T", help="Event type, such as user.created.")
@click.option("--data", "data_json", metavar="JSON", help="The events' data; without it, the catalogue's sample.")
@click.option("--workspace", metavar="W", help="The events' workspace; without it, the default workspace.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many, each with its own id.")
@click.option("--topic", metavar="NAME", help="Where to; without it, the first source topic.")
@json_option
def publish(
    *, event_type: str, data_json: str | None, workspace: str | None, count: int, topic: str | None, as_json: bool
) -> None:
    """Put sample or given events on the source topic; done when Kafka has acknowledged them."""
    settings = resolve_settings((Need.KAFKA,))
    configure_for_command(settings.log)
    wanted = publishing.Publication(event_type, data_json, workspace, count, topic)
    with progress(count, "events published") as tell:
        published = run_async(publishing.publish(settings, wanted, tell))
    if not published.sample_used:
        hint = "the catalogue has no sample of this type, so data is {}; give it with --data"
        click.echo(f"Note: {hint}", err=True)
    if as_json:
        print_json({"topic": published.topic, "count": published.count, "first_id": published.first_id})
    elif count == 1:
        click.echo(f"published {published.first_id} to {published.topic}")
    else:
        click.echo(f"published {published.count} events to {published.topic}, the first is {published.first_id}")
