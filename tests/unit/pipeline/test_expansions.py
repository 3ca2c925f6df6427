"""Which deliveries of which event are made in a turn."""

from collections import Counter
from types import SimpleNamespace

import pytest

from dispatcher.core.model import Event, Origin
from dispatcher.pipeline.expansions import BEGINNING, MAX_OPEN, PORTION, TURN, TURN_SECONDS, Expansions, Given
from dispatcher.pipeline.intake import Expansion
from dispatcher.pipeline.work import PartitionState, RecordWork, Window
from dispatcher.ports import CommitPoint
from tests.unit.pipeline.world import WORKSPACE, subscription


class Taker:
    """Takes deliveries on, or does with an event's what the test says."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.says: dict[str, Given] = {}

    def __call__(self, delivery):
        """Take a delivery on, unless told otherwise."""
        given = self.says.get(delivery.event.id, Given.TAKEN)
        self.taken[delivery.event.id] += given is Given.TAKEN
        return given


@pytest.fixture
def clock():
    """A clock that stands still, unless the test sets it."""
    return SimpleNamespace(now=0.0)


@pytest.fixture
def taker():
    return Taker()


@pytest.fixture
def expansions(taker, clock):
    return Expansions(None, taker, lambda: clock.now)


@pytest.fixture
def state():
    return PartitionState("events", 0, CommitPoint(0), 0)


def event_to(webhooks, state, event_id="evt_1"):
    """Make the expansion of an event to so many webhooks."""
    origin = Origin("events", 0, state.tracker.position, 1_790_000_000_000)
    event = Event(event_id, "user.created", "2026-01-15T10:30:00Z", WORKSPACE, "", b"{}", None, None, origin, b"{}")
    work = RecordWork(state, state.tracker.position, 100, Window(1_000_000))
    return Expansion(event, [subscription(f"wh_{number}") for number in range(webhooks)], work)


def test_a_large_event_is_made_over_several_turns(expansions, taker, state):
    """A turn in which an event began is no idle one, though nothing was under way before; the next go on with it."""
    expansions.begin_turn()
    assert expansions.is_idle
    expansions.begin(event_to(100, state))
    assert (taker.taken["evt_1"], len(expansions), state.expanding) == (BEGINNING, 1, 1)
    assert not expansions.is_idle
    expansions.begin_turn()
    assert taker.taken["evt_1"] == 100
    assert (len(expansions), state.expanding) == (0, 0)


def test_events_that_are_under_way_leave_half_of_a_turn(expansions, taker, state):
    """Two large events take turns, and together half of what a turn makes; a new one has the rest."""
    for number in (1, 2):
        expansions.begin_turn()
        expansions.begin(event_to(1_000, state, f"evt_{number}"))
    before = taker.taken.copy()
    expansions.begin_turn()
    taker.taken.subtract(before)
    assert PORTION <= taker.taken["evt_1"] <= TURN // 2
    assert abs(taker.taken["evt_1"] - taker.taken["evt_2"]) <= PORTION
    assert expansions.left >= TURN // 2 - PORTION


def test_time_ends_a_turn_as_well(expansions, taker, state, clock, monkeypatch):
    """Where each delivery takes its time, what is under way gets one portion, and the turn goes to what is new."""
    expansions.begin_turn()
    expansions.begin(event_to(1_000, state))

    def take_long(self, delivery):
        clock.now += TURN_SECONDS / PORTION
        self.taken[delivery.event.id] += 1
        return Given.TAKEN

    monkeypatch.setattr(Taker, "__call__", take_long)
    expansions.begin_turn()
    assert taker.taken["evt_1"] == BEGINNING + PORTION
    assert (expansions.is_stuck, expansions.is_idle) == (False, False)


def test_who_is_told_to_come_later_makes_room_for_the_next(expansions, taker, state):
    """Of two events the one whose workspace has its share stays where it is, and the other goes on."""
    expansions.begin_turn()
    expansions.begin(event_to(100, state, "evt_1"))
    expansions.begin(event_to(100, state, "evt_2"))
    taker.says["evt_1"] = Given.LATER
    expansions.begin_turn()
    assert (taker.taken["evt_1"], taker.taken["evt_2"]) == (BEGINNING, 100)
    assert (expansions.is_stuck, expansions.is_idle) == (False, False)
    expansions.begin_turn()
    assert (len(expansions), expansions.is_stuck, expansions.is_idle) == (1, False, True)
    del taker.says["evt_1"]
    expansions.begin_turn()
    assert taker.taken["evt_1"] == 100


def test_where_there_is_no_room_nobody_goes_on_and_turns_are_kept(expansions, taker, state):
    """The delivery that found no room is the first one offered again; an event that comes meanwhile waits behind."""
    expansions.begin_turn()
    expansions.begin(event_to(100, state, "evt_1"))
    taker.says["evt_1"] = Given.NO_ROOM
    expansions.begin_turn()
    expansions.begin(event_to(1, state, "evt_2"))
    assert expansions.is_stuck
    assert taker.taken == {"evt_1": BEGINNING}
    assert len(expansions) == 2
    taker.says.clear()
    expansions.begin_turn()
    assert taker.taken == {"evt_1": 100, "evt_2": 1}


def test_open_events_are_bounded(expansions, state):
    """So many are open at a time; of those that may be told to come later, half as many."""
    expansions.begin_turn()
    for number in range(MAX_OPEN):
        assert expansions.has_room
        assert expansions.may_wait is (number < MAX_OPEN // 2)
        expansions.left = TURN
        expansions.begin(event_to(100, state, f"evt_{number}"))
    assert not expansions.has_room
    expansions.finish(0)
    assert len(expansions) == 0


def test_at_the_end_the_events_that_lack_the_fewest_are_made_whole(expansions, taker, state):
    """What is left of them is made, in the order of their subscriptions; a larger one is forgotten and stays open."""
    expansions.begin_turn()
    expansions.begin(event_to(1_000, state, "evt_1"))
    expansions.begin(event_to(BEGINNING + 3, state, "evt_2"))
    taker.says["evt_2"] = Given.LATER
    expansions.begin_turn()  # puts a delivery back, which must not be lost
    made = expansions.finish(500)
    assert [(each.event.id, each.subscription_id) for each in made] == [
        ("evt_2", f"wh_{number}") for number in range(BEGINNING, BEGINNING + 3)
    ]
    assert [each.work.expanding for each in made] == [False] * 3
    assert (len(expansions), state.expanding, len(state.tracker)) == (0, 1, 2)
