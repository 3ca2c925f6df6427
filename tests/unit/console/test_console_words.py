"""How values are written on pages."""

import json

from dispatcher.console import words
from dispatcher.operations.catalogue import load_catalogue


def test_times_are_utc_with_a_machines_form():
    """Milliseconds stay in the attribute; no time is a dash."""
    assert words.time(1_768_473_000_123) == (
        '<time datetime="2026-01-15T10:30:00.123Z" title="2026-01-15 10:30:00 UTC">2026-01-15 10:30:00 UTC</time>'
    )
    assert "—" in words.time(None)
    assert "data-countdown" in words.countdown(0)


def test_short_and_long_times_have_units():
    """Two digits are enough; two units are enough."""
    assert [words.duration(ms) for ms in (None, 0.4, 7.04, 12.6, 1500)] == ["—", "0.40 ms", "7.0 ms", "13 ms", "1.50 s"]
    assert [words.span(ms) for ms in (500, 59_980, 5_400_000, 90_061_000)] == ["500ms", "59s", "1h 30m", "1d 1h"]


def test_badges_say_their_status_in_a_word():
    """Sign, word and tone; an unknown status is shown as it is, escaped."""
    assert words.badge("failed") == '<span class="badge bad"><span aria-hidden="true">✕</span> failed</span>'
    assert "<b>" not in words.badge("<b>")


def test_numbers_are_set_apart():
    """Thousands by a narrow space; words by their count."""
    assert (words.number(1_234_567), words.number(2.5)) == ("1\u202f234\u202f567", "2.5")
    assert (words.plural(1, "field"), words.plural(2, "field")) == ("1 field", "2 fields")


def test_numbers_of_fields_keep_their_digits():
    """Neither rounded nor set apart, and never with an exponent."""
    assert [words.exactly(value) for value in (1000.0, 1234.567, 0.5, 1e-7)] == ["1000", "1234.567", "0.5", "0.0000001"]


def test_status_codes_have_a_tone_and_none_has_a_word():
    """2xx is good, others bad, no response is none."""
    assert "good" in words.response_code(204)
    assert "bad" in words.response_code(302)
    assert "none" in words.response_code(0)


def test_what_is_no_text_stays_readable():
    """Bytes that are no UTF-8 are replaced, long ids cut."""
    assert words.readable(b"a\xff") == "a\ufffd"
    assert (words.short("rpl_0123456789abcdef"), words.short("rpl_1")) == ("rpl_01234567…", "rpl_1")


def test_event_types_go_by_their_titles():
    """The catalogue's title; where it holds no such type, the name."""
    types = load_catalogue(None).types
    name, entry = next(iter(types.items()))
    assert entry.title != name
    assert (words.event_title(name, types), words.event_title("gone", types)) == (entry.title, "gone")


def test_json_is_indented_and_keeps_its_words():
    """What can be no UTF-8 is escaped: it stays JSON of the same value."""
    assert words.written({"note": "Grüße"}) == '{\n  "note": "Grüße"\n}'
    broken = words.written({"note": "ü\ud800"})
    assert broken == '{\n  "note": "ü\\ud800"\n}'
    assert json.loads(broken) == {"note": "ü\ud800"}
