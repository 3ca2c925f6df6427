"""A worker imports what it needs and no more: most of the time that it takes to start is importing."""

import os
import subprocess
import sys

import pytest

NOWHERE = "127.0.0.1:9"
NOT_NEEDED = {
    "rich.text": "progress bars of commands; structlog would import it for tracebacks that the log never shows",
    "pygments": "comes with rich.text",
    "pydantic": "fields of the REST API",
    "jinja2": "the console's pages",
    "opentelemetry": "spans, where they are wanted",
    "dispatcher.console": "the API's process serves it",
    "dispatcher.api.application": "likewise",
    "dispatcher.operations.webhooks": "what the API does",
    "dispatcher.local": "services for a machine that has none; both addresses are configured here",
}


@pytest.fixture(scope="module")
def imported():
    """Every module that `dispatcher worker` imports until it reads its settings, of which one is missing."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environ |= {"DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": NOWHERE, "DISPATCHER_MONGO_URI": f"mongodb://{NOWHERE}"}
    command = [sys.executable, "-X", "importtime", "-m", "dispatcher", "worker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=60)
    assert "Error: DISPATCHER_ENCRYPTION_KEYS" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_the_list_is_one(imported):
    """What a worker is made of stands in it."""
    assert {"dispatcher.pipeline.pipeline", "dispatcher.kafka.consumer", "aiokafka", "motor", "aiohttp.web"} <= imported


@pytest.mark.parametrize("module", NOT_NEEDED)
def test_a_worker_leaves_out_what_others_need(imported, module):
    """It imports neither the module nor anything under it."""
    assert not {name for name in imported if name == module or name.startswith(f"{module}.")}, NOT_NEEDED[module]


def test_what_is_hidden_meanwhile_is_there_afterwards():
    """A module that structlog must not see can be imported later in the same process."""
    code = "from dispatcher.cli.roles import _quick_imports\nwith _quick_imports(): pass\nimport rich.console"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
