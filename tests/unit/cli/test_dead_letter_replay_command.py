"""`dispatcher dead-letters replay`: what it prints and how it ends, over Kafka and MongoDB in memory."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

import dispatcher.cli.dead_letter_replay
from dispatcher.cli import main
from dispatcher.cli.replay_progress import replay_progress
from dispatcher.config import describe
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import UnavailableError
from dispatcher.pipeline import dead_letter_replay
from tests.unit.mongo.samples import START_MS
from tests.unit.pipeline.letter_world import World, event


@pytest.fixture
def world(monkeypatch):
    for name, _, _ in describe():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPATCHER_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("DISPATCHER_MONGO_URI", "mongodb://mongo")
    monkeypatch.setenv("DISPATCHER_ENCRYPTION_KEYS", "A" * 43 + "=")
    monkeypatch.setattr(dispatcher.cli.dead_letter_replay, "configure_for_command", lambda _log: None)
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    world = World()

    @asynccontextmanager
    async def opened(_settings):
        yield world.replays()

    monkeypatch.setattr(dispatcher.cli.dead_letter_replay, "dead_letter_replays", opened)
    return world


def call(*arguments):
    return CliRunner().invoke(main, ("dead-letters", "replay", *arguments))


def fast(*arguments):
    return call("--rate", "100000", *arguments)


def test_dry_run_shows_how_many_would_go_where(world):
    """A table names workspace, webhook, fate and number; nothing is sent."""
    world.letter(1)
    world.letter(2)
    world.logged(world.letter(3, "wh_2"), DeliveryStatus.DELIVERED)
    shown = call("--dry-run")
    assert shown.exit_code == 0
    assert [line.split(maxsplit=2) for line in shown.stdout.splitlines()[1:3]] == [
        ["acme", "wh_1", "would be replayed  2"],
        ["acme", "wh_2", "delivered since    1"],
    ]
    assert "2 of 3 dead letters would be replayed" in shown.stdout
    assert not world.sent


def test_dry_run_for_scripts(world):
    """As JSON, the same numbers come with names that stay, and what an earlier replay went through already."""
    world.letter(1)
    fast("--json")
    world.letter(2)
    shown = json.loads(call("--dry-run", "--json").stdout)
    assert (shown["chosen"], shown["would_replay"], shown["deliveries"]) == (2, 1, 1)
    assert {"workspace_id": "acme", "subscription_id": "wh_1", "fate": "replayed", "count": 1} in shown["rows"]
    assert list(shown["repeats"].values()) == [1]


def test_a_replay_names_its_id_before_it_sends_and_says_how_it_ended(world):
    """What would go on with it is said at once; at the end, how many went out and what was left out."""
    world.letter(1)
    world.letter(2, "wh_gone")
    shown = fast()
    (replay_id,) = world.store.stored
    assert shown.exit_code == 0
    assert f"dispatcher dead-letters replay --resume {replay_id}" in shown.stderr
    assert f"{replay_id} is done: 1 dead letters replayed; left out: 1 webhook deleted" in shown.stdout


def test_nothing_to_replay_is_no_error(world):
    """Where no letter would go out, that is said, and no replay is made."""
    world.letter(1, "wh_gone")
    shown = call()
    assert (shown.exit_code, world.store.stored) == (0, {})
    assert "0 of 1 dead letters would be replayed" in shown.stdout


def test_a_repetition_is_refused(world):
    """The same range a second time ends with exit code 1 and the words that say how to go on; --again does it."""
    world.letter(1)
    assert fast().exit_code == 0
    refused = fast()
    assert refused.exit_code == 1
    assert "--again" in refused.stderr
    assert "--again" in fast("--dry-run").stderr
    world.ms += 1
    assert fast("--again").exit_code == 0
    assert len(world.sent) == 2


def test_ctrl_c_ends_after_the_batch_in_hand_and_resume_goes_on(world):
    """Interrupted, the command says how to go on and exits with 1; gone on with, each letter has gone out once."""
    expected = [world.letter(number) for number in range(7)]
    interrupt(world, signals=1)
    stopped = fast()
    (replay_id,) = world.store.stored
    assert stopped.exit_code == 1
    assert f"{replay_id} was stopped: 4 dead letters replayed" in stopped.stdout
    assert f"go on with: dispatcher dead-letters replay --resume {replay_id}" in stopped.stderr
    assert world.sent_ids == expected[:4]
    done = json.loads(call("--resume", replay_id, "--rate", "100000/s", "--json").stdout)
    assert done == {"replay_id": replay_id, "stage": "done", "replayed": 7, "fates": {"replayed": 7}}
    assert world.sent_ids == expected


@pytest.mark.parametrize(("options", "pauses"), [((), [0.5]), (("--rate", "4"), [0.25])])
def test_a_resumed_replay_has_its_rate_unless_another_is_given(world, monkeypatch, options, pauses):
    """Gone on with, a replay goes at the rate that it was begun with; --rate says otherwise."""
    made = []

    async def pause(seconds, _stop):
        made.append(seconds)

    monkeypatch.setattr(dead_letter_replay, "_pause", pause)
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 1)
    for number in range(5):
        world.letter(number)
    interrupt(world, signals=1)
    call("--rate", "2/s")
    (replay_id,) = world.store.stored
    made.clear()
    assert call("--resume", replay_id, *options).exit_code == 0
    assert made == pauses


def test_a_second_ctrl_c_ends_at_once(world):
    """Interrupted twice, the command ends where it is, and what it had done is found when it is gone on with."""
    expected = [world.letter(number) for number in range(7)]
    interrupt(world, signals=2)
    ended = fast()
    (replay_id,) = world.store.stored
    assert ended.exit_code == 1
    assert f"{replay_id} is not done; go on with:" in ended.stderr
    assert call("--resume", replay_id).exit_code == 0
    assert sorted(world.sent_ids) == sorted(expected)


def test_ctrl_c_while_it_looks_ends_without_a_word_of_a_replay(world):
    """Before there is a replay, nothing is to be gone on with, and nothing was sent."""
    world.letter(1)
    look = world.log.states

    async def interrupted(delivery_ids):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(10)
        return await look(delivery_ids)

    world.log.states = interrupted
    ended = fast()
    assert (ended.exit_code, "--resume" in ended.stderr, world.store.stored) == (1, False, {})
    assert isinstance(ended.exception, SystemExit)


def test_an_outage_says_how_to_go_on(world):
    """Where a store goes away in the middle, the error comes with the command that goes on."""
    for number in range(7):
        world.letter(number)

    def gone(replay):
        if len(world.sent) == 4:
            raise UnavailableError("MongoDB is out of reach")

    world.store.before_store = gone
    ended = fast()
    assert ended.exit_code == 1
    assert "--resume rpl_" in ended.stderr
    assert "MongoDB is out of reach" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume", "rpl_1", "--workspace", "acme"), "--resume goes on as the replay was begun"),
        (("--resume", "rpl_1", "--dry-run"), "--resume goes on as the replay was begun"),
        (("--resume", "rpl_1", "--keep-attempts"), "--resume goes on as the replay was begun"),
        (("--as-event", "--subscription", "wh_1"), "--as-event is for source records"),
        (("--as-event", "--status", "5xx"), "--as-event is for source records"),
        (("--rate", "0"), "such as 200 or 200/s"),
        (("--rate", "fast"), "such as 200 or 200/s"),
        (("--max", "0"), "--max"),
        (("--status", "99"), "--status: write a status code"),
        (("--since", "yesterday"), "--since:"),
        (("--to-subscription", "wh_3"), "of another workspace"),
        (("--to-subscription", "wh_none"), "there is no webhook wh_none"),
    ],
)
def test_wrong_usage_exits_with_2(world, arguments, words):
    """What can't be meant is refused with exit code 2 and words that say what to write; nothing is sent."""
    world.letter(1)
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert words in " ".join(refused.stderr.split())
    assert not world.sent


def test_unknown_replays_are_told_of(world):
    """An id that nobody knows ends with exit code 1."""
    refused = call("--resume", "rpl_none")
    assert (refused.exit_code, "there is no replay rpl_none" in refused.stderr) == (1, True)


def test_source_records_are_replayed_as_events(world):
    """With --as-event the mended records go out, one delivery for each webhook that wants them."""
    world.bad(event(1))
    shown = call("--as-event", "--dry-run")
    assert "1 of 1 dead letters would be replayed (2 deliveries)" in shown.stdout
    assert fast("--as-event", "--type", "user.*").exit_code == 0
    assert len(world.sent) == 2


def test_options_say_what_is_chosen(world):
    """Filters, bound, target and attempts reach the replay as they were given."""
    world.letter(1, attempt=3)
    world.letter(2, attempt=3, at_ms=START_MS + 86_400_000)
    world.letter(3, reason="gone")
    chosen = ("--workspace", "acme", "--type", "user.*", "--reason", "attempts_exhausted", "--status", "none")
    assert fast(*chosen, "--max", "1", "--to-subscription", "wh_2", "--keep-attempts").exit_code == 0
    (sent,) = world.sent
    assert (sent.subscription_id, sent.attempt) == ("wh_2", 3)


def interrupt(world, signals):
    """Send Ctrl-C to this process while the second batch is on its way."""

    def refuse(_record):
        if len(world.sent) == 3:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)

    world.producer.refuses = refuse


def test_progress_without_a_terminal_is_lines_with_rate_and_time_left(capsys):
    """Every few seconds a line says how much is done, how fast, and for how long it will go on."""
    times = iter((0.0, 2.0, 5.0, 6.0, 11.0))
    with replay_progress(terminal=False, clock=lambda: next(times)) as show:
        for done in (0, 100, 500, 600, 1_000):
            show("dead letters replayed", done, 1_000)
    assert capsys.readouterr().err.splitlines() == [
        "500 of 1,000 dead letters replayed, 100/s, about 5 s left",
        "1,000 of 1,000 dead letters replayed, 91/s",
    ]


def test_progress_of_short_steps_is_silent(capsys):
    """What is done within seconds needs no lines."""
    times = iter((0.0, 1.0, 4.0))
    with replay_progress(terminal=False, clock=lambda: next(times)) as show:
        for done in (0, 1, 4):
            show("dead letters read", done, 4)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_is_a_bar(capsys):
    """On a terminal, each step has a bar with its numbers and its rate."""
    with replay_progress(terminal=True) as show:
        show("dead letters read", 0, 10)
        show("dead letters read", 10, 10)
    said = capsys.readouterr().err
    assert "dead letters read" in said
    assert "10/10" in said
