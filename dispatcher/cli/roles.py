"""`dispatcher run`, `worker`, `api` and `demo`: the processes."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from dispatcher.app.child import ControlChannel, join_supervisor
from dispatcher.cli.command_line import example

_LOCAL = click.option(
    "--local", is_flag=True, help="Local defaults: plain HTTP and loopback endpoints, default workspace."
)


@click.command(epilog=example("dispatcher run --local", "dispatcher run --workers 4"))
@click.option(
    "--local", is_flag=True, help="Start Kafka and MongoDB where no address is configured; allow loopback endpoints."
)
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Worker processes.")
@click.pass_context
def run(ctx: click.Context, *, local: bool, workers: int) -> None:
    """Run API, console and workers until SIGTERM or Ctrl-C; a worker that dies is started again."""
    ctx.exit(_part("run").run(local=local, workers=workers))


@click.command(epilog=example("dispatcher worker"))
@_LOCAL
@click.option("--worker-number", type=click.IntRange(1), hidden=True, default=1)
@click.option("--control-fd", type=click.IntRange(0), hidden=True)
@click.option("--parent-pid", type=click.IntRange(0), hidden=True)
@click.pass_context
def worker(
    ctx: click.Context, *, local: bool, worker_number: int, control_fd: int | None, parent_pid: int | None
) -> None:
    """Run one worker until SIGTERM: consume and deliver. Run at most as many as the source topics have partitions."""
    control: ControlChannel | None = None
    if control_fd is not None and parent_pid is not None:
        # Before the slow imports: this process must not outlive its supervisor, not even while it starts.
        control = join_supervisor(control_fd, parent_pid)
    with _quick_imports():
        part = _part("worker")
    ctx.exit(part.main(local=local, worker_number=worker_number, control=control))


@click.command(epilog=example("dispatcher api"))
@_LOCAL
@click.pass_context
def api(ctx: click.Context, *, local: bool) -> None:
    """Run the REST API and the console until SIGTERM."""
    ctx.exit(_part("api").main(local=local))


@click.command(epilog=example("dispatcher demo"))
@click.pass_context
def demo(ctx: click.Context) -> None:
    """Tell the whole story in a terminal: publish, deliver, fail, retry, dead letter."""
    ctx.exit(_part("demo").main())


@click.command(epilog=example("dispatcher receive --port 9000", "dispatcher receive --port 9000 --status 500"))
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="0 takes a free one.")
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="What to answer.")
@click.option("--secret", help="Verify signatures with this secret.")
@click.pass_context
def receive(ctx: click.Context, *, port: int, status: int, secret: str | None) -> None:
    """Listen on loopback and show every webhook that arrives: an endpoint for trying things out."""
    ctx.exit(_part("receive").main(port=port, status=status, secret=secret, show=click.echo))


def _part(name: str) -> Any:
    """Import one of the processes, which takes longer than the help text of another."""
    return importlib.import_module(f"dispatcher.app.{name}")


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Leave out what took half of the time that a worker needs to be imported, and serves nothing in it."""
    # What is imported is never garbage; the collector would look at all of it again and again.
    gc.disable()
    # structlog imports rich where it is there, for tracebacks that our log never shows.
    absent = "rich" not in sys.modules
    if absent:
        sys.modules["rich"] = None  # type: ignore[assignment]  # "is not there", says the language's reference
    try:
        importlib.import_module("structlog")
    finally:
        if absent:
            del sys.modules["rich"]
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
