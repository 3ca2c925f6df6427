"""The settings of this process: from the environment, and from the local stack where it has no address."""

import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from dispatcher import config
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from dispatcher.local import LocalStack


def resolve_settings(
    needs: Collection[config.Need] = tuple(config.Need),
    *,
    run_local: bool = False,
    stack: "LocalStack | None" = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings; where Kafka or MongoDB has no address, look for the local stack that runs.

    Args:
        needs: What must not be missing.
        run_local: The command line said `--local`: its defaults hold whatever the addresses are.
        stack: A local stack that this process started itself; None: look for one.
        environ: Variables by name; None: those of this process.

    Raises:
        SettingsError: Settings are unknown, wrong or missing.
        LocalServiceError: The local stack's state file can't be read.
    """
    if stack is None and (run_local or config.local_wanted(environ)):
        # What starts and finds services is slow to import, and a deployment never needs it.
        from dispatcher.local import find_running  # noqa: PLC0415

        stack = find_running(config.local_dir(environ))
    return config.load(
        environ,
        local=None if stack is None else offered(stack),
        run_local=run_local,
        needs=needs,
        terminal=sys.stderr.isatty(),
    )


def offered(stack: "LocalStack") -> config.LocalAddresses:
    """Return what a local stack offers."""
    return config.LocalAddresses(
        kafka_bootstrap=stack.kafka_bootstrap, mongo_uri=stack.mongo_uri, encryption_key=stack.encryption_key
    )
