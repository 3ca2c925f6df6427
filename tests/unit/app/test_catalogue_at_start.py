"""A faulty event catalogue is met when a process starts, not when an event comes."""

import os
import subprocess
import sys

import pytest

from dispatcher.app.api import build_api
from dispatcher.core.errors import SettingsError
from dispatcher.settings import CatalogueSettings, KafkaSettings, MongoSettings, Settings

NOWHERE = "127.0.0.1:9"


@pytest.fixture
def faulty(tmp_path):
    """A catalogue of one file, with a fault on its second line."""
    (tmp_path / "own.type.json").write_text('{\n"title" 1}')
    return tmp_path


def test_a_worker_refuses_to_start(faulty):
    """Exit code 2 and one line with file and line, before anything is connected to."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environ |= {
        "DISPATCHER_EVENT_SCHEMAS_DIR": str(faulty),
        "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
        "DISPATCHER_MONGO_URI": f"mongodb://{NOWHERE}",
        "DISPATCHER_ENCRYPTION_KEYS": "A" * 43 + "=",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher", "worker"], capture_output=True, text=True, check=False, env=environ,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{faulty}/own.type.json:2: this is no JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_refuses_to_start(faulty):
    """It is built from the catalogue, and says the same."""
    settings = Settings(
        KafkaSettings(NOWHERE), MongoSettings(f"mongodb://{NOWHERE}"), (), catalogue=CatalogueSettings(faulty)
    )
    with pytest.raises(SettingsError, match=r"own\.type\.json:2: this is no JSON"):
        build_api(settings, None)
