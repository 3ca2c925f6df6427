"""Settings of a process, with the local stack where no address is configured."""

from pathlib import Path

import pytest

import dispatcher.local
from dispatcher.app.resolve import resolve_settings
from dispatcher.config import Need
from dispatcher.core.errors import SettingsError
from dispatcher.local import LocalStack

KEY = "A" * 43 + "="
STACK = LocalStack(Path("/data"), "127.0.0.1:19092", "mongodb://127.0.0.1:27099/", KEY)
BOTH = {"DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": "k:1", "DISPATCHER_MONGO_URI": "mongodb://m"}


@pytest.fixture
def running(monkeypatch):
    """Let a local stack run, and note where it was looked for."""
    looked = []
    monkeypatch.setattr(dispatcher.local, "find_running", lambda folder: looked.append(folder) or STACK)
    return looked


def test_the_running_stack_is_found_in_the_configured_folder(running):
    """Without addresses, the folder's stack is used with its key and the local defaults."""
    settings = resolve_settings(environ={"DISPATCHER_LOCAL_DIR": "there"})
    assert running == [Path("there")]
    assert settings.kafka.bootstrap_servers == "127.0.0.1:19092"
    assert settings.encryption_keys == (bytes(32),)
    assert settings.send.allow_http


def test_with_both_addresses_nobody_looks_for_a_stack(running):
    """Configured addresses win, and a production process never touches the local folder."""
    settings = resolve_settings(environ={**BOTH, "DISPATCHER_ENCRYPTION_KEYS": KEY})
    assert running == []
    assert not settings.send.allow_http


def test_a_stack_that_this_process_started_is_not_looked_for(running):
    """`run --local` knows its own stack."""
    assert resolve_settings(stack=STACK, run_local=True, environ={}).kafka.bootstrap_servers == "127.0.0.1:19092"
    assert running == []


def test_with_local_and_both_addresses_the_folders_key_is_used(running):
    """A worker of `run --local` opens the same secrets as its siblings wherever Kafka and MongoDB are."""
    assert resolve_settings(run_local=True, environ=BOTH).encryption_keys == (bytes(32),)


def test_without_a_stack_the_message_says_so(monkeypatch):
    """Nothing configured and nothing running is one sentence."""
    monkeypatch.setattr(dispatcher.local, "find_running", lambda _folder: None)
    with pytest.raises(SettingsError, match=r"no local Kafka runs in \.local"):
        resolve_settings((Need.KAFKA,), environ={})
