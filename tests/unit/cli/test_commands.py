"""The commands: their help, exit codes, and what they print; what they call is replaced."""

import json
import logging
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

import click
import pytest
import structlog
from click.testing import CliRunner

import dispatcher.cli.api_keys
import dispatcher.cli.publish
import dispatcher.cli.roles
import dispatcher.cli.topics
from dispatcher.app import publish as publishing
from dispatcher.cli import COMMANDS, main
from dispatcher.config import describe
from dispatcher.core.errors import NotFoundError, UnavailableError
from dispatcher.operations.api_keys import CreatedApiKey
from dispatcher.ports import ApiKey

KEY = ApiKey("key_1", "acme", "ci", frozenset({"read", "write"}), 1_768_473_000_000)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for name, _, _ in describe():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPATCHER_LOCAL_DIR", str(tmp_path / "none"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def configured(monkeypatch):
    monkeypatch.setenv("DISPATCHER_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("DISPATCHER_MONGO_URI", "mongodb://mongo")
    monkeypatch.setenv("DISPATCHER_ENCRYPTION_KEYS", "A" * 43 + "=")


def call(*arguments):
    return CliRunner().invoke(main, arguments)


def every_command():
    """Return the words of every command."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        yield (name,)
        for sub in getattr(command, "commands", {}):
            yield (name, sub)


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_command_has_a_help_with_an_example_of_itself(words):
    """Whoever asks a command for help gets a line to copy."""
    result = call(*words, "--help")
    assert result.exit_code == 0
    assert re.search(r"Examples?:\n  dispatcher ", result.output.replace("\n    ", "\n  "))
    assert f"dispatcher {' '.join(words)}" in result.output.split("Example")[1]


@pytest.mark.parametrize("words", [w for w in every_command() if len(w) == 2 or w[0] in {"publish", "settings"}])
def test_commands_that_scripts_read_print_json(words):
    """Each command whose answer a script would read has --json."""
    assert ("--json" in call(*words, "--help").output) == (words != ("api-keys", "revoke"))


def test_the_main_help_names_every_command_and_imports_none():
    """The first help is quick: no command's module, and no client library, is loaded for it."""
    code = (
        "import sys\nfrom dispatcher.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'aiokafka', 'motor', 'aiohttp', 'rich', 'dispatcher.app', 'dispatcher.config'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.endswith("heavy: []\n")
    assert all(f"\n  {name} " in output for name in COMMANDS)


def test_the_help_of_settings_lists_every_setting():
    """The reference is where the command is."""
    output = call("settings", "--help").output
    assert all(name in output for name, _, _ in describe())


def test_wrong_usage_is_exit_code_2():
    """Unknown commands and options are the caller's fault."""
    assert call("nonsense").exit_code == 2
    assert call("publish").exit_code == 2
    assert call("publish", "--type", "a", "--count", "0").exit_code == 2
    assert call("api-keys", "create").exit_code == 2


def test_wrong_settings_are_exit_code_2_with_a_line_each(monkeypatch):
    """Every wrong setting has its line on standard error, and there is no traceback."""
    monkeypatch.setenv("DISPATCHER_API_PORT", "x")
    monkeypatch.setenv("DISPATCHER_NONSENSE", "x")
    result = call("topics", "check")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Error: DISPATCHER_") for line in lines)
    assert result.stdout == ""


@pytest.mark.parametrize("words", [("topics", "ensure"), ("api-keys", "list"), ("publish", "--type", "a")])
def test_without_addresses_one_sentence_says_that_no_local_stack_runs(words):
    """A command on a machine where nothing runs says so, and what to do."""
    result = call(*words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert re.search(r"no local (Kafka|MongoDB) runs in .*dispatcher run --local", line)


def test_settings_are_shown_without_secrets(configured):
    """The table and its JSON say what holds and from where."""
    result = call("settings")
    assert result.exit_code == 0
    assert re.search(r"DISPATCHER_KAFKA_BOOTSTRAP_SERVERS +kafka:9092 +environment", result.output)
    rows = {row["name"]: row for row in json.loads(call("settings", "--json").output)}
    assert rows["DISPATCHER_MONGO_URI"]["value"] == "(hidden)"
    assert rows["DISPATCHER_API_PORT"] == {
        "name": "DISPATCHER_API_PORT",
        "value": "8080",
        "origin": "default",
        "default": "8080",
        "meaning": "their port; 0: a free one, printed",
    }


def answering(answer):
    async def fake(*_arguments):
        if isinstance(answer, Exception):
            raise answer
        return answer

    return fake


def test_topics_ensure_says_what_it_did(configured, monkeypatch):
    """A line for each thing done, or that there was nothing to do."""
    monkeypatch.setattr(dispatcher.cli.topics, "ensure", answering(["webhooks.replay: made"]))
    assert call("topics", "ensure").output == "webhooks.replay: made\n"
    assert json.loads(call("topics", "ensure", "--json").output) == {"done": ["webhooks.replay: made"]}
    monkeypatch.setattr(dispatcher.cli.topics, "ensure", answering([]))
    assert call("topics", "ensure").output == "nothing to do\n"


def test_topics_check_fails_where_they_differ_and_names_the_command_that_mends_it(configured, monkeypatch):
    """Exit code 1 and a line for each difference."""
    monkeypatch.setattr(dispatcher.cli.topics, "check", answering(["webhooks.replay: doesn't exist"]))
    result = call("topics", "check")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: webhooks.replay: doesn't exist",
        "Error: Own topics are mended with: dispatcher topics ensure",
    ]
    result = call("topics", "check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"ok": False, "problems": ["webhooks.replay: doesn't exist"]}
    monkeypatch.setattr(dispatcher.cli.topics, "check", answering([]))
    assert call("topics", "check").exit_code == 0


def test_what_is_out_of_reach_is_one_sentence_and_exit_code_1(configured, monkeypatch):
    """A broken connection is no traceback."""
    monkeypatch.setattr(dispatcher.cli.topics, "check", answering(UnavailableError("Kafka is out of reach")))
    result = call("topics", "check")
    assert (result.exit_code, result.stderr) == (1, "Error: Kafka is out of reach\n")


@pytest.fixture
def keys(configured, monkeypatch):
    """Replace the API keys by ones that note how they were called."""
    told = []

    async def create(*arguments):
        told.append(arguments)
        return CreatedApiKey(KEY, "whk_plain")

    async def revoke(workspace_id, key_id):
        told.append((workspace_id, key_id))
        if key_id != KEY.id:
            raise NotFoundError("there is no such API key")

    @asynccontextmanager
    async def opened(_settings):
        yield SimpleNamespace(create=create, list=answering([KEY]), revoke=revoke)

    monkeypatch.setattr(dispatcher.cli.api_keys.key_access, "api_keys", opened)
    return told


def test_a_new_key_is_alone_on_standard_output(keys):
    """A script can take the key as it is printed, and JSON has the rest."""
    result = call("api-keys", "create", "--workspace", "acme", "--name", "ci", "--scope", "read, write")
    assert result.exit_code == 0
    assert result.stdout == "whk_plain\n"
    assert keys == [("acme", "ci", ["read", "write"], None)]
    assert json.loads(call("api-keys", "create", "--workspace", "acme", "--json").stdout) == {
        "id": "key_1",
        "workspace_id": "acme",
        "name": "ci",
        "scopes": ["read", "write"],
        "created_at": "2026-01-15T10:30:00Z",
        "last_used_at": None,
        "expires_at": None,
        "key": "whk_plain",
    }


def test_a_key_can_be_made_to_expire(keys):
    """--expires-at takes an RFC 3339 time, and what is none is wrong usage."""
    made = call("api-keys", "create", "--workspace", "acme", "--expires-at", "2026-01-15T11:30:00+01:00")
    assert (made.exit_code, keys[0][3]) == (0, 1_768_473_000_000)
    wrong = call("api-keys", "create", "--workspace", "acme", "--expires-at", "tomorrow")
    assert (wrong.exit_code, "--expires-at: send an RFC 3339 time" in wrong.stderr, len(keys)) == (2, True, 1)


def test_keys_are_listed_as_a_table_and_as_json(keys):
    """What is missing is a dash in the table and null in JSON."""
    assert re.search(r"key_1 +acme +ci +read,write +2026-01-15T10:30:00Z +- +-", call("api-keys", "list").output)
    assert json.loads(call("api-keys", "list", "--json").output)["data"][0]["id"] == "key_1"


def test_a_key_is_revoked_or_said_to_be_unknown(keys):
    """Revoking what isn't there fails."""
    assert call("api-keys", "revoke", "key_1", "--workspace", "acme").exit_code == 0
    assert keys == [("acme", "key_1")]
    result = call("api-keys", "revoke", "key_2")
    assert (result.exit_code, result.stderr) == (1, "Error: there is no such API key\n")


@pytest.fixture
def published(configured, monkeypatch):
    """Replace publishing by something that notes what was wanted and tells of its progress."""
    told = []

    async def publish(_settings, wanted, progress):
        told.append(wanted)
        for done in range(0, wanted.count + 1, max(wanted.count // 20, 1)):
            progress(done)
        return publishing.Published("events", wanted.count, "evt_1", sample_used=wanted.event_type != "odd.type")

    monkeypatch.setattr(dispatcher.cli.publish.publishing, "publish", publish)
    return told


def test_publishing_says_what_and_where(published):
    """One event is named, more are counted, and JSON has both."""
    result = call("publish", "--type", "user.created", "--workspace", "acme", "--data", '{"a":1}')
    assert result.stdout == "published evt_1 to events\n"
    assert published == [publishing.Publication("user.created", '{"a":1}', "acme", 1, None)]
    assert call("publish", "--type", "user.created", "--count", "3").stdout == (
        "published 3 events to events, the first is evt_1\n"
    )
    assert json.loads(call("publish", "--type", "a", "--json").stdout) == {
        "topic": "events",
        "count": 1,
        "first_id": "evt_1",
    }


def test_long_publishing_tells_of_its_progress_in_plain_lines(published):
    """Without a terminal there is a line for each tenth."""
    result = call("publish", "--type", "user.created", "--count", "100000")
    lines = result.stderr.splitlines()
    assert len(lines) == 10
    assert lines[0] == "10000 of 100000 events published"


def test_a_type_without_sample_gets_a_hint(published):
    """An empty data member is not sent unnoticed."""
    result = call("publish", "--type", "odd.type")
    assert result.exit_code == 0
    assert "--data" in result.stderr


def test_roles_hand_on_their_options_and_their_exit_code(monkeypatch):
    """`run`, `worker`, `api` and `demo` are thin: options go in, the exit code comes out."""
    told = []

    def part(name):
        def called(**options):
            told.append((name, options))
            return 1

        return SimpleNamespace(run=called, main=called)

    monkeypatch.setattr(dispatcher.cli.roles, "_part", part)
    assert call("run", "--local", "--workers", "3").exit_code == 1
    assert call("worker").exit_code == 1
    assert call("api", "--local").exit_code == 1
    assert call("demo").exit_code == 1
    assert told == [
        ("run", {"local": True, "workers": 3}),
        ("worker", {"local": False, "worker_number": 1, "control": None}),
        ("api", {"local": True}),
        ("demo", {}),
    ]


def test_a_supervised_worker_takes_up_its_channel_first(monkeypatch):
    """Number and channel that the supervisor gave reach the worker."""
    told = []
    monkeypatch.setattr(dispatcher.cli.roles, "join_supervisor", lambda *arguments: arguments)
    monkeypatch.setattr(dispatcher.cli.roles, "_part", lambda _: SimpleNamespace(main=lambda **o: told.append(o) or 0))
    assert call("worker", "--worker-number", "4", "--control-fd", "7", "--parent-pid", "99").exit_code == 0
    assert told == [{"local": False, "worker_number": 4, "control": (7, 99)}]
