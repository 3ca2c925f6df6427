"""`dispatcher secrets rotate-key`: what it prints and how it exits; the rotation itself is replaced."""

import json
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

import dispatcher.cli.secrets
from dispatcher.cli import main
from dispatcher.core.errors import UnavailableError
from dispatcher.operations.key_rotation import KeyRotated, KeySurvey

FIRST, SECOND = "aaaa000011112222", "bbbb000011112222"
DONE = KeySurvey(3, {FIRST: 7, SECOND: 0}, 0, 0, ())
BEFORE = KeySurvey(3, {FIRST: 2, SECOND: 5}, 0, 0, ())


class Rotation:
    """Stands for the operation."""

    def __init__(self, survey, error=None):
        self.found, self.error, self.rotated = survey, error, False

    async def survey(self, tell):
        """Tell of some progress."""
        tell(25_000)
        return self.found

    async def rotate(self, *, tell):
        """Fail where that is wanted."""
        self.rotated = True
        if self.error is not None:
            raise self.error
        return KeyRotated(2, 5, self.found)


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.setenv("DISPATCHER_LOCAL_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DISPATCHER_MONGO_URI", "mongodb://mongo")
    monkeypatch.setenv("DISPATCHER_ENCRYPTION_KEYS", "A" * 43 + "=")
    monkeypatch.setattr(dispatcher.cli.secrets, "configure_for_command", lambda _: None)

    def run(rotation, *options):
        @asynccontextmanager
        async def opened(_settings):
            yield rotation

        monkeypatch.setattr(dispatcher.cli.secrets, "key_rotation", opened)
        return CliRunner().invoke(main, ["secrets", "rotate-key", *options])

    return run


def test_a_rotation_that_is_done(call):
    """It says what was sealed anew, what each key has, and when the others can go; exit code 0."""
    result = call(Rotation(DONE))
    assert result.exit_code == 0
    assert "sealed anew: 5 secrets of 2 webhooks" in result.stdout
    assert f"{FIRST}  seals and opens  7" in result.stdout
    assert f"{SECOND}  only opens       0" in result.stdout
    assert "take the others out of DISPATCHER_ENCRYPTION_KEYS when 24 hours have passed" in result.stderr


def test_a_dry_run(call):
    """It rotates nothing, says how much there is to do, shows that it goes on, and exits with 1 while there is some."""
    rotation = Rotation(BEFORE)
    result = call(rotation, "--dry-run")
    assert (result.exit_code, rotation.rotated) == (1, False)
    assert "sealed anew" not in result.stdout
    assert "5 secrets are sealed with another key than the first: run it without --dry-run" in result.stderr
    assert "25,000 webhooks looked at" in result.stderr
    assert call(Rotation(DONE), "--dry-run").exit_code == 0


def test_json(call):
    """Scripts get the same, and the same exit code."""
    result = call(Rotation(BEFORE), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "sealed_anew": 5,
        "webhooks_changed": 2,
        "webhooks": 3,
        "keys": [{"id": FIRST, "secrets": 2}, {"id": SECOND, "secrets": 5}],
        "not_opened": 0,
        "unreadable_webhooks": 0,
        "named": [],
        "done": False,
    }


def test_somebody_still_seals_with_a_former_key(call):
    """What came under another key again is told with what to do about it."""
    result = call(Rotation(BEFORE))
    assert result.exit_code == 1
    assert "start all of them with the new key in front, then run this again" in result.stderr


def test_what_cannot_be_opened_is_named(call):
    """Secrets of a key that isn't set are an error that names the webhooks and says what to do."""
    result = call(Rotation(KeySurvey(3, {FIRST: 5}, 2, 1, ("wh_1", "wh_2"))))
    assert result.exit_code == 1
    assert "2 secrets are opened by no key of DISPATCHER_ENCRYPTION_KEYS, and 1 webhooks can't be read" in result.stderr
    assert "wh_1, wh_2; add the key that sealed them" in result.stderr
    assert "take the others out" not in result.stderr


def test_with_one_key_there_is_nothing_to_change(call):
    """Somebody who forgot to put the new key in front is told so."""
    result = call(Rotation(KeySurvey(3, {FIRST: 7}, 0, 0, ())))
    assert result.exit_code == 0
    assert "put a new one in front of it to change it" in result.stderr


def test_a_store_out_of_reach(call):
    """It ends in a sentence and exit code 1."""
    result = call(Rotation(DONE, UnavailableError("MongoDB is out of reach")))
    assert (result.exit_code, result.stderr) == (1, "Error: MongoDB is out of reach\n")
