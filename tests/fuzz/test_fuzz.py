"""Every recorded input and a fixed number of made-up ones, from a fixed seed; `make fuzz` goes on from there."""

import pytest

from dispatcher.http import connection
from dispatcher.http.connection import Connection
from tests.fuzz.corpus import seeds
from tests.fuzz.running import FoundError, run
from tests.fuzz.targets import ANSWER_MEMORY_BYTES, TARGETS

EXECUTIONS = 1_500


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_what_must_hold(target):
    """Each input ends in one outcome within bounds of memory and of work; the counts are printed."""
    found = run(target, EXECUTIONS, seed=7)
    print(found)  # noqa: T201 - shown with -s, and where the test fails
    assert found.executions == EXECUTIONS + 2 * len(seeds(target))
    assert len(found.outcomes) > 1
    assert found.most_steps > 0


def test_many_kinds_of_answer_are_met():
    """The made-up answers reach success, refusal, kept and closed connections, and broken bodies."""
    found = run("answers", EXECUTIONS, seed=8)
    assert {"2xx, kept", "2xx, closed", "4xx, kept", "5xx, closed", "protocol", "closed"} <= set(found.outcomes)
    assert 0 < found.peak_bytes <= ANSWER_MEMORY_BYTES


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_HEAD_BYTES", 2**30), ("_MAX_BODY_BYTES", 2**30), ("MAX_INTERIM_RESPONSES", 2**30)]
)
def test_a_bound_taken_away_is_found(monkeypatch, name, value):
    """Without one of the bounds on an answer, the same run finds an input that takes too much, or a wrong outcome."""
    monkeypatch.setattr(connection, name, value)
    with pytest.raises(FoundError):
        run("answers", 1_000, seed=9)


def test_an_answer_taken_for_the_next_ones_is_found(monkeypatch):
    """Where bytes behind an answer don't close its connection, the run finds an input whose next answer is wrong."""
    monkeypatch.setattr(Connection, "on_message_begin", lambda _: None)
    kept = Connection._finish
    monkeypatch.setattr(Connection, "_finish", lambda self, *, keep: kept(self, keep=True))
    with pytest.raises(FoundError):
        run("answers", 4_000, seed=9)
