"""Which subscriptions an event goes to: against the simplest matcher there is, and at what cost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import matching
from dispatcher.core.matching import TYPE, SubscriptionIndex, is_pattern, patterns_of
from dispatcher.core.model import Subscription

segments = st.sampled_from(["user", "team", "b-c"])
types = st.lists(segments, min_size=1, max_size=3).map(".".join)
patterns = types | types.map(lambda prefix: prefix + ".*") | st.just("*")
workspaces = st.sampled_from(["acme", "acme", "other"])
statuses = st.sampled_from(["active", "active", "inactive", "disabled"])


def subscription(
    number: int | str = 1, *events: str, workspace: str = "acme", status: str = "active", revision: int = 1
):
    return Subscription(f"wh_{number}", workspace, None, events, (), status=status, revision=revision)


subscriptions = st.builds(
    lambda number, events, workspace, status, revision: subscription(
        number, *events, workspace=workspace, status=status, revision=revision
    ),
    st.integers(0, 5),
    st.lists(patterns, max_size=4),
    workspaces,
    statuses,
    st.integers(1, 4),
)
steps = st.lists(subscriptions | st.integers(0, 5), max_size=14)


def wants(pattern: str, event_type: str) -> bool:
    """Say the rule as the documentation does: exact, everything under a prefix, or everything."""
    return pattern in {"*", event_type} or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))


def matched(index: SubscriptionIndex, workspace: str, event_type: str) -> list[str]:
    return [found.id for found in index.match(workspace, event_type)]


@given(steps, workspaces, types)
def test_matches_what_the_simplest_matcher_does(changes, workspace, event_type):
    """After any puts and removals the index holds the newest revisions and matches as a walk over them would."""
    index = SubscriptionIndex()
    held: dict[str, Subscription] = {}
    for change in changes:
        if isinstance(change, int):
            index.remove(f"wh_{change}")
            held.pop(f"wh_{change}", None)
            continue
        newer = change.id not in held or held[change.id].revision <= change.revision
        assert index.put(change) == newer
        if newer:
            held[change.id] = change
    found = index.match(workspace, event_type)
    expected = {
        one.id: one
        for one in held.values()
        if one.workspace_id == workspace and one.status == "active" and any(wants(p, event_type) for p in one.events)
    }
    assert {one.id: one for one in found} == expected
    assert len(found) == len(expected)
    assert {one.id: one for one in index} == held
    assert len(index) == len(held)
    assert all(index.get(f"wh_{number}") is held.get(f"wh_{number}") for number in range(6))


@given(steps)
def test_removing_everything_leaves_nothing_behind(changes):
    """When every subscription is gone, so are the tables that found it: a workspace that left costs no memory."""
    index = SubscriptionIndex()
    for change in changes:
        if isinstance(change, int):
            index.remove(f"wh_{change}")
        else:
            index.put(change)
    for number in range(6):
        index.remove(f"wh_{number}")
    assert (len(index), list(index), index._by_id, index._by_workspace) == (0, [], {}, {})


@given(types, patterns)
def test_the_patterns_of_a_type_are_those_that_want_it(event_type, pattern):
    """A pattern is yielded for a type exactly where it matches it, and each of them only once."""
    yielded = list(patterns_of(event_type))
    assert (pattern in yielded) == wants(pattern, event_type)
    assert len(yielded) == len(set(yielded))
    assert all(is_pattern(one) for one in yielded)


def test_patterns_go_from_exact_to_all():
    """The patterns of a type come the most exact first."""
    assert list(patterns_of("team.member.added")) == ["team.member.added", "team.member.*", "team.*", "*"]
    assert list(patterns_of("ping")) == ["ping", "*"]


def test_a_prefix_is_not_its_own_member():
    """user.* wants user.created and user.a.b, and neither user nor username.changed."""
    index = SubscriptionIndex()
    index.put(subscription(1, "user.*"))
    wanted = ["user.created", "user.a.b", "user", "username.changed", "users"]
    assert [event_type for event_type in wanted if index.match("acme", event_type)] == ["user.created", "user.a.b"]


def test_several_matching_patterns_are_one_delivery():
    """A subscription that several of its patterns match is found once."""
    index = SubscriptionIndex()
    index.put(subscription(1, "user.created", "user.*", "*", "user.*"))
    index.put(subscription(2, "*"))
    assert matched(index, "acme", "user.created") == ["wh_1", "wh_2"]


def test_every_matching_pattern_counts():
    """Who wants a type by name, by prefix or by the star is found, and finding leaves no trace in the index."""
    index = SubscriptionIndex()
    for number, pattern in enumerate(["a.b.c", "a.b.*", "a.*", "*", "a.b"]):
        index.put(subscription(number, pattern))
    for _ in range(2):
        assert matched(index, "acme", "a.b.c") == ["wh_0", "wh_1", "wh_2", "wh_3"]
    assert matched(index, "acme", "a.b.d") == ["wh_1", "wh_2", "wh_3"]
    index.remove("wh_3")
    assert matched(index, "acme", "a.b.c") == ["wh_0", "wh_1", "wh_2"]


def test_nothing_crosses_workspaces():
    """An event never reaches a subscription of another workspace, not even one that wants everything."""
    index = SubscriptionIndex()
    index.put(subscription(1, "*", workspace="other"))
    assert matched(index, "acme", "user.created") == []
    assert matched(index, "other", "user.created") == ["wh_1"]


@pytest.mark.parametrize("status", ["inactive", "disabled"])
def test_what_is_not_active_is_found_but_not_matched(status):
    """A retry finds its subscription whatever its status, and new events match active ones only."""
    index = SubscriptionIndex()
    off = subscription(1, "*", status=status)
    index.put(off)
    assert matched(index, "acme", "user.created") == []
    assert index.get("wh_1") is off


def test_a_change_of_status_takes_effect():
    """Switched off it is no longer matched, switched on again it is."""
    index = SubscriptionIndex()
    on = subscription(1, "*")
    for revision, status in ((1, "active"), (2, "disabled"), (3, "active")):
        index.put(replace(on, status=status, revision=revision))
        assert bool(index.match("acme", "a")) == (status == "active")


def test_an_older_revision_changes_nothing():
    """A revision that comes late, as a change stream may bring it, does not undo a newer one."""
    index = SubscriptionIndex()
    assert index.put(subscription(1, "user.*", revision=2))
    assert not index.put(subscription(1, "*", revision=1))
    assert matched(index, "acme", "post.deleted") == []
    assert matched(index, "acme", "user.created") == ["wh_1"]


def test_no_events_is_nothing():
    """A subscription without patterns receives nothing."""
    index = SubscriptionIndex()
    index.put(subscription(1))
    assert matched(index, "acme", "user.created") == []


def test_a_match_is_the_callers_own():
    """What was matched stays as it was when the index changes afterwards."""
    index = SubscriptionIndex()
    index.put(subscription(1, "*"))
    found = index.match("acme", "a")
    index.put(subscription(2, "*"))
    assert [one.id for one in found] == ["wh_1"]


class CountingDict(dict):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def get(self, *args):
        """Answer, and count the question."""
        CountingDict.asked += 1
        return super().get(*args)

    def __iter__(self):
        raise AssertionError("matching walked over the whole table")

    values = items = keys = __iter__


@pytest.mark.parametrize("others", [0, 5_000])
def test_the_cost_does_not_grow_with_the_subscriptions(others):
    """Matching asks one question for the workspace and one for each pattern of the type, however many there are."""
    index = SubscriptionIndex()
    for number in range(others):
        index.put(subscription(number, f"type{number}.created", f"area{number}.*"))
    index.put(subscription("mine", "team.*"))
    index._by_workspace = CountingDict({name: CountingDict(table) for name, table in index._by_workspace.items()})
    CountingDict.asked = 0
    assert matched(index, "acme", "team.member.added") == ["wh_mine"]
    assert CountingDict.asked == 1 + len(["team.member.added", "team.member.*", "team.*", "*"])


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("*", True), ("user.*", True), ("user.created", True), ("a.b.*", True), ("_", True),
        ("", False), (".*", False), ("**", False), ("*.created", False), ("user*", False), ("user.*.x", False),
        ("user.*\n", False), ("us er", False), (".user", False), ("*.*", False),
    ],
)  # fmt: skip
def test_what_may_stand_in_events(text, accepted):
    """A pattern is a type, a type and .*, or *; a star stands nowhere else."""
    assert is_pattern(text) == accepted


@given(types | types.map(lambda prefix: prefix + "."))
def test_every_type_is_a_pattern(event_type):
    """Any well-formed type may be subscribed to by its name."""
    assert TYPE.fullmatch(event_type)
    assert is_pattern(event_type)


def test_what_was_removed_is_remembered_for_a_while(monkeypatch):
    """The latest removals are known, until the subscription is put back or too many came after."""
    monkeypatch.setattr(matching, "REMEMBERED_REMOVALS", 2)
    index = SubscriptionIndex()
    for name in ("wh_a", "wh_b", "wh_c"):
        index.put(subscription(name.removeprefix("wh_")))
        assert not index.was_removed(name)
        index.remove(name)
    assert [index.was_removed(name) for name in ("wh_a", "wh_b", "wh_c")] == [False, True, True]
    index.put(subscription("b"))
    assert not index.was_removed("wh_b")
