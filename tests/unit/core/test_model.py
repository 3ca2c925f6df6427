"""The words of the product: their spelling and their defaults are what others script against."""

from dataclasses import FrozenInstanceError

import pytest

from dispatcher.core.model import (
    WORKSPACE_ID,
    DeadLetterReason,
    Event,
    Origin,
    PayloadFormat,
    Status,
    Subscription,
)


def test_the_spellings_are_the_documented_ones():
    """Statuses, formats and reasons are spelled as the API and the dead letters document them."""
    assert list(Status) == ["active", "inactive", "disabled"]
    assert list(PayloadFormat) == ["event", "context", "cloudevents"]
    assert set(DeadLetterReason) == {
        "attempts_exhausted", "gone", "circuit_open", "expired", "undecodable", "unknown_type", "schema",
        "no_workspace", "workspace_mismatch", "too_large",
    }  # fmt: skip


def test_a_subscription_has_the_documented_defaults():
    """What an owner doesn't set is as the documentation says."""
    made = Subscription("wh_1", "acme", None, (), ())
    assert (made.method, made.content_type, made.status, made.payload_format) == (
        "POST", "application/json", "active", "event"
    )  # fmt: skip
    assert (made.max_attempts, made.timeout_seconds, made.rate_limit) == (6, 10, None)
    assert (made.headers, made.api_key, made.api_key_header) == ((), None, "X-API-Key")


def test_a_subscription_does_not_change():
    """A subscription in the index can't be changed under a delivery that uses it."""
    with pytest.raises(FrozenInstanceError):
        Subscription("wh_1", "acme", None, (), ()).status = "disabled"


def test_every_event_has_its_own_bodies():
    """The cache of rendered bodies is one event's own."""
    one, other = (Event("e", "t", "c", "w", "", b"{}", None, None, Origin("t", 0, 0, 0), b"{}") for _ in range(2))
    one.bodies["event"] = b"1"
    assert other.bodies == {}


@pytest.mark.parametrize(
    ("text", "accepted"),
    [("acme", True), ("_", True), ("7-a.b_c", True), ("a" * 64, True),
     ("", False), ("a" * 65, False), (".a", False), ("-a", False), ("a/b", False), ("a b", False), ("a\n", False),
     ("é", False)],
)  # fmt: skip
def test_what_a_workspace_id_is(text, accepted):
    """A workspace id is letters, digits, dots, hyphens and underscores, at most 64 of them."""
    assert bool(WORKSPACE_ID.fullmatch(text)) == accepted
