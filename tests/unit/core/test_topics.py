"""Names of topics and groups."""

from dispatcher.core.retry import DEFAULT_TIERS
from dispatcher.core.topics import TopicNames, group_of


def test_own_topics_are_named_under_the_prefix():
    """Every own topic is listed once, under the prefix."""
    names = TopicNames("hooks", DEFAULT_TIERS)
    assert list(names.own()) == [
        "hooks.retry.1m",
        "hooks.retry.5m",
        "hooks.retry.30m",
        "hooks.retry.1h",
        "hooks.retry.6h",
        "hooks.overflow",
        "hooks.replay",
        "hooks.dead-letter",
        "hooks.outcomes",
    ]
    assert all(names.is_own(name) for name in names.own())


def test_a_like_name_is_no_own_topic():
    """Only the dot makes a prefix: another team's topic may begin with the same word."""
    names = TopicNames("hooks", ())
    assert names.is_own("hooks.retry.10m")
    assert not names.is_own("hooks-events")
    assert not names.is_own("hooks")


def test_each_role_has_its_own_group():
    """A slow tier must not rebalance the source."""
    assert group_of("dispatcher", "source") == "dispatcher"
    assert group_of("dispatcher", "retry.1m") == "dispatcher.retry.1m"
