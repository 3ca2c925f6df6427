"""What one dead letter says, and which ones a filter chooses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.dead_letters import UNREADABLE, DeadLetterFilter, read_letter, statuses
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import Origin
from dispatcher.core.records import (
    DeliveryRecord,
    bad_record_headers,
    decode_dead_letter,
    encode_headers,
)
from tests.unit.core.test_records import deliveries, headers, origins

ORIGIN = Origin("events", 3, 9, 400)
DELIVERY = DeliveryRecord("del_1", "wh_1", "acme", 6, 0, 500, None, ORIGIN, "gone", 410, "answered 410")
VALUE = b'{"type":"user.created","workspace_id":"acme","data":{}}'
AT_MS = 1_768_473_000_000


def letter_of(record=DELIVERY, value=VALUE, kept=(), at_ms=AT_MS, offset=7):
    return read_letter(2, offset, at_ms, b"k", value, encode_headers(record, kept))


def outcome(reading):
    """Give what reading gives, or that it refuses."""
    try:
        return reading()
    except UndecodableError as error:
        return str(error)


@given(deliveries)
def test_a_letter_says_what_the_codec_says(delivery):
    """Whatever a delivery's headers are, the letter's columns are those that the codec reads."""
    letter = letter_of(delivery)
    if not delivery.reason:
        assert letter.problem
        return
    assert letter.told() == delivery
    assert (letter.delivery_id, letter.subscription_id) == (delivery.delivery_id, delivery.subscription_id)
    assert (letter.workspace_id, letter.reason) == (delivery.workspace_id, delivery.reason)
    assert (letter.http_status, letter.problem) == (delivery.http_status, "")


@given(deliveries.map(lambda each: encode_headers(each, ())), headers, st.permutations(range(16)))
def test_a_letter_with_headers_of_any_kind_is_as_readable_as_to_the_codec(written, strange, order):
    """Headers that were replaced, doubled, dropped or made up are refused where the codec refuses them, only there."""
    mixed = (*written, *strange)
    mixed = tuple(mixed[index] for index in order if index < len(mixed)) + mixed[len(order) :]
    letter = read_letter(0, 0, 0, None, None, mixed)
    told = outcome(lambda: decode_dead_letter(mixed))
    if isinstance(told, str):
        assert (letter.problem, letter.reason, letter.delivery_id) == (told, UNREADABLE, None)
    elif told.reason:
        assert (letter.problem, letter.reason) == ("", told.reason)
        assert letter.delivery_id == getattr(told, "delivery_id", None)


@pytest.mark.parametrize(
    "change",
    [
        ("dispatcher-origin-key", b"no base64!"),
        ("dispatcher-parked-since-ms", b"-5"),
        ("dispatcher-error", b"\xff"),
        ("dispatcher-reason", b""),
        ("dispatcher-workspace-id", b"\xff"),
        ("dispatcher-attempt", b"1 2"),
        ("dispatcher-http-status", b"1000"),
        ("dispatcher-replay-id", b""),
    ],
    ids=lambda change: change[0],
)
def test_one_broken_header_makes_a_letter_unreadable(change):
    """Each header is checked as the codec does it, and of an unreadable letter nothing is believed."""
    letter = read_letter(0, 0, 0, None, VALUE, (*encode_headers(DELIVERY, ()), change))
    assert change[0] in letter.problem
    assert (letter.delivery_id, letter.subscription_id, letter.workspace_id) == (None, None, None)
    assert (letter.reason, letter.event_type) == (UNREADABLE, None)


@given(origins, st.text(min_size=1), st.text())
def test_a_source_record_that_is_no_event_has_no_delivery(origin, reason, error):
    """Its dead letter says the reason, and the workspace that it claims."""
    letter = read_letter(0, 0, 0, None, VALUE, bad_record_headers(origin, reason, error))
    assert (letter.reason, letter.delivery_id, letter.subscription_id) == (reason, None, None)
    assert (letter.workspace_id, letter.event_type, letter.http_status) == ("acme", "user.created", 0)


@pytest.mark.parametrize(
    ("value", "kept", "expected"),
    [
        (VALUE, (), "user.created"),
        (b'{"type":"user.created","text":"\\ud800"}', (), "user.created"),
        (b'{"type":"\x1b]0;title\x07"}', (), None),
        (b'{"type":"\\u001b[2J"}', (), None),
        (b'{"type":["user.created"]}', (), None),
        (b"[1]", (), None),
        (b"rubbish", (), None),
        (b"[" * 100_000, (), None),
        (None, (), None),
        (b"{}", (("ce_specversion", b"1.0"), ("ce_type", b"user.deleted")), "user.deleted"),
        (b"{}", (("ce_specversion", b"1.0"), ("ce_type", b"\xff")), None),
        (
            b'{"type":"user.updated"}',
            (("ce_specversion", b"1.0"), ("ce_type", b"x"), ("Content-Type", b"application/cloudevents+json")),
            "user.updated",
        ),
    ],
)
def test_the_event_type_is_the_events_where_it_is_sound(value, kept, expected):
    """It comes from the value, or from the header that holds it, and is None where it is no well-formed type."""
    assert letter_of(value=value, kept=kept).event_type == expected


def test_types_are_not_looked_for_where_nobody_asks():
    """The value is left alone then; the columns of headers are read all the same."""
    letter = read_letter(0, 0, 0, None, b"rubbish", encode_headers(DELIVERY, ()), with_types=False)
    assert (letter.event_type, letter.workspace_id) == (None, "acme")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(workspace_id="acme"), True),
        (DeadLetterFilter(workspace_id="other"), False),
        (DeadLetterFilter(subscription_id="wh_1"), True),
        (DeadLetterFilter(subscription_id="wh_2"), False),
        (DeadLetterFilter(event_type="user.created"), True),
        (DeadLetterFilter(event_type="user.*"), True),
        (DeadLetterFilter(event_type="user"), False),
        (DeadLetterFilter(event_type="use.*"), False),
        (DeadLetterFilter(event_type="user.created.*"), False),
        (DeadLetterFilter(reason="gone"), True),
        (DeadLetterFilter(reason="expired"), False),
        (DeadLetterFilter(status="410"), True),
        (DeadLetterFilter(status="4xx"), True),
        (DeadLetterFilter(status="5xx"), False),
        (DeadLetterFilter(status="none"), False),
        (DeadLetterFilter(since_ms=AT_MS), True),
        (DeadLetterFilter(since_ms=AT_MS + 1), False),
        (DeadLetterFilter(until_ms=AT_MS), False),
        (DeadLetterFilter(until_ms=AT_MS + 1), True),
        (DeadLetterFilter("acme", "wh_1", "user.*", "gone", "4xx", AT_MS, AT_MS + 1), True),
    ],
)
def test_a_filter_chooses_by_each_of_its_fields(wanted, chosen):
    """Each field is asked for by itself; `since` counts, `until` doesn't, and `user.*` is what is below `user.`."""
    assert wanted.wants(letter_of()) is chosen


def test_letters_without_an_answer_have_the_status_none():
    """No answer is asked for with `none`, of deliveries and of source records alike."""
    assert DeadLetterFilter(status="none").wants(letter_of(replace(DELIVERY, http_status=0)))
    assert DeadLetterFilter(status="none").wants(read_letter(0, 0, 0, None, b"", bad_record_headers(ORIGIN, "r", "e")))


@pytest.mark.parametrize("text", ["", "5", "50", "5000", "5x", "x00", "abc", "0xx", "-50", "٥٠٠", "none "])  # noqa: RUF001
def test_a_wrong_status_is_refused_with_what_to_write(text):
    """What is no code, no class and not `none` says what is."""
    with pytest.raises(ValueError, match="such as 503"):
        statuses(text)


def test_letters_of_one_delivery_or_record_have_one_identity():
    """Two letters of a delivery have it in common, whatever else they say; so have two of one source record."""
    later = replace(DELIVERY, reason="expired", http_status=0, replay_id="rpl_1")
    assert letter_of().identity == letter_of(later, at_ms=1, offset=8).identity
    assert letter_of().identity != letter_of(replace(DELIVERY, delivery_id="del_2")).identity
    bad = [read_letter(0, n, n, None, b"", bad_record_headers(ORIGIN, f"r{n}", "e")) for n in range(2)]
    assert bad[0].identity == bad[1].identity
    elsewhere = bad_record_headers(replace(ORIGIN, offset=10), "r0", "e")
    assert bad[0].identity != read_letter(0, 0, 0, None, b"", elsewhere).identity


def test_unreadable_letters_are_told_apart():
    """A letter without readable headers is its own, and says what is wrong."""
    first, second = (read_letter(0, offset, 0, None, b"x", ()) for offset in (1, 2))
    assert first.identity != second.identity
    assert "dispatcher-origin-topic" in first.problem
