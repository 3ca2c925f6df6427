"""A worker connects to everything side by side; what fails first ends it with one sentence."""

import os
import subprocess
import sys

import pytest

NOWHERE = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("mongo_uri", "code", "sentence"),
    [
        (f"mongodb://{NOWHERE}", 1, f"Error: Kafka at {NOWHERE} is out of reach"),
        ("mongodb://h/?w=2&w=hush&x", 2, "Error: DISPATCHER_MONGO_URI can't be used"),
    ],
    ids=["nothing answers", "one address is wrong"],
)
def test_one_sentence_says_what_is_wrong(mongo_uri, code, sentence):
    """Its exit code is that of the fault, and there is no traceback."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environ |= {
        "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
        "DISPATCHER_MONGO_URI": mongo_uri,
        "DISPATCHER_ENCRYPTION_KEYS": "A" * 43 + "=",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher", "worker"], capture_output=True, text=True, check=False, env=environ,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert sum(line.startswith("Error: ") for line in done.stderr.splitlines()) == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
