"""What the dead-letter commands print: everything is told, nothing a terminal obeys, no secret."""

import json
import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.app.dead_letter_view import ShownLetter, ShownRecord
from dispatcher.app.dead_letters import Survey
from dispatcher.cli.letter_lines import letter_json, letter_lines, replay_command
from dispatcher.cli.output import print_strange_json
from dispatcher.cli.survey_lines import survey_json, survey_lines
from dispatcher.core.dead_letters import DeadLetterFilter, read_letter
from dispatcher.core.delivery_log import DeliveryStatus, LoggedAttempt, LoggedDelivery
from dispatcher.core.letter_choice import LetterChoice
from dispatcher.core.model import DeadLetterReason, Origin
from dispatcher.core.record_faults import RecordFault
from dispatcher.core.records import BadRecord, DeliveryRecord, bad_record_headers, encode_headers
from dispatcher.operations.times import parse_rfc3339
from tests.unit.mongo.samples import webhook

AT_MS = 1_768_473_000_123
ORIGIN = Origin("events", 3, 9, AT_MS - 1000)
DELIVERY = DeliveryRecord("del_1", "wh_1", "acme", 6, 0, 500, None, ORIGIN, "gone", 410, "the endpoint answered 410")
STRANGE = "\x1b]0;pwned\x07\x9b2J\u202eevil"
VALUE = json.dumps({"type": "user.created", "password": "hunter2", "data": {"text": STRANGE}}).encode()


def letter_of(record=DELIVERY, value=VALUE, offset=7):
    return read_letter(2, offset, AT_MS, b"k", value, encode_headers(record, (("ce_x", STRANGE.encode()),)))


def attempt(number, body=b"", error="the endpoint answered 410"):
    return LoggedAttempt("", number, DeliveryStatus.FAILED, AT_MS - 5000, 12.5, 410, error, body)


def logged(*attempts):
    return LoggedDelivery(
        "del_1", "acme", "wh_1", "evt_1", "user.created", "", ORIGIN, DeliveryStatus.FAILED, AT_MS, AT_MS, 6, 1.0,
        410, "e", "gone", None, "", False, list(attempts),
    )  # fmt: skip


def shown(letter=None, **changes):
    letter = letter or letter_of()
    return ShownLetter("webhooks.dead-letter", letter, None if letter.problem else letter.told(), False, **changes)


def lines_of(view):
    return list(letter_lines(view, AT_MS + 7_200_000))


def bad(reason="undecodable", **record):
    letter = read_letter(0, 4, AT_MS, None, b"{,}", bad_record_headers(ORIGIN, reason, "the value is no JSON"))
    told = letter.told()
    assert isinstance(told, BadRecord)
    return ShownLetter("webhooks.dead-letter", letter, told, False, record=ShownRecord(**record))


def test_a_delivery_is_told_with_its_attempts_and_what_the_endpoint_said():
    """Place, reason in words, delivery, each attempt, the last answer's body and the command are there."""
    view = shown(delivery=logged(attempt(1), attempt(2, b'{"error": "no such hook", "token": "t0p"}'), attempt(3)))
    text = "\n".join(lines_of(view))
    for part in (
        "webhooks.dead-letter-2-7",
        "(2 h ago)",
        "gone: the endpoint answered 410, so its webhook was disabled",
        "del_1  (failed in the delivery log)",
        "what the endpoint said to attempt 2",
        '"error": "no such hook"',
        "events-3-9",
        '"type": "user.created"',
        "wh_1  (deleted)",
    ):
        assert part in text
    assert "hunter2" not in text
    assert "t0p" not in text
    assert "hunter2" not in json.dumps(letter_json(view))
    assert [each["attempt"] for each in letter_json(view)["delivery"]["attempts"]] == [1, 2, 3]


def test_a_webhook_is_told_without_what_its_url_carries():
    """Where it goes is said, and not the query, where some put a token."""
    stored = webhook()
    stored = replace(stored, url="https://hooks.example.com/a?token=t0p", subscription=stored.subscription)
    view = shown(webhook=stored)
    assert "https://hooks.example.com/a?***)" in "\n".join(lines_of(view))
    assert letter_json(view)["delivery"]["webhook_url"] == "https://hooks.example.com/a?***"


def test_nothing_that_strangers_wrote_reaches_the_terminal_raw(capsys):
    """Escape sequences in header names and values, errors, bodies and answers are written out, in JSON as well."""
    record = DeliveryRecord(STRANGE, STRANGE, STRANGE, 6, 0, 5, None, Origin(STRANGE, 0, 0, 0), STRANGE, 1, "e")
    letter = letter_of(record, value=STRANGE.encode())
    letter.headers = (*letter.headers, (STRANGE, STRANGE.encode()))
    view = shown(letter, delivery=logged(attempt(1, STRANGE.encode(), STRANGE)))
    unreadable = read_letter(0, 0, 0, None, None, ((f"dispatcher-{STRANGE}", b"x"),))
    unreadable.problem = STRANGE
    choice = LetterChoice(DeadLetterFilter())
    choice.take(letter)
    survey = Survey("topic", choice, [letter])
    strange = bad(kept=True, value=STRANGE.encode(), fault=RecordFault(STRANGE, 2))
    for line in (*lines_of(view), *lines_of(shown(unreadable)), *lines_of(strange), *survey_lines(survey, 10)):
        assert line.isprintable(), line
    for value in (letter_json(view), letter_json(strange), survey_json(survey)):
        print_strange_json(value)
    output = capsys.readouterr().out
    assert output.isascii()
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", output) is None


def test_lone_surrogates_and_rubbish_can_be_printed(capsys):
    """Texts that UTF-8 can't carry, and DEL, come out as JSON that reads the same."""
    print_strange_json({"\ud800": "\x7f\udfff"})
    output = capsys.readouterr().out
    assert "\x7f" not in output
    assert json.loads(output) == {"\ud800": "\x7f\udfff"}


@given(st.binary(max_size=80), st.integers(0, 80))
def test_any_body_is_told(body, byte):
    """Whatever bytes a body or a source record is, telling them never fails, and each line prints as itself."""
    view = bad(kept=True, value=body, fault=RecordFault("wrong", min(byte, len(body))))
    view.letter.value = body
    assert all(line.isprintable() for line in lines_of(view))
    json.dumps(letter_json(view))


def test_a_source_record_is_told_with_the_byte_where_it_goes_wrong():
    """The bytes around it are laid out with a mark below the wrong one, in both columns; secrets there are starred."""
    value = b'{"token":"topsecret","data":{"a":1,,}}'
    lines = lines_of(bad(value=value, kept=True, size_bytes=38, fault=RecordFault("no JSON at byte 35", 35)))
    assert "  it goes wrong at byte 35 (from 0)" in lines
    row = next(index for index, line in enumerate(lines) if line.strip().startswith("00000020"))
    marks = [found.start() for found in re.finditer(r"\^+", lines[row + 1])]
    assert [lines[row][at : at + width] for at, width in zip(marks, (2, 1), strict=True)] == ["2c", ","]
    assert "topsecret" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"kept": False}, "is on its topic no more"),
        ({"kept": True, "problem": "the record is too large to be fetched"}, "can't be read: the record is too large"),
        ({"kept": True, "size_bytes": 2_000_000, "value": VALUE}, "is an event by today's settings: replay it"),
        ({"kept": True, "fault": RecordFault("951,424 more than allowed", 5)}, "it goes wrong at byte 5"),
        ({"kept": True, "fault": RecordFault("cut off", 3), "value": b"{,}"}, "00000003  (the end)"),
    ],
)
def test_what_became_of_a_source_record_is_said(record, told):
    """Gone, unreadable, mended or cut off: each has its words."""
    assert told in "\n".join(lines_of(bad(**record)))


def test_the_command_replays_exactly_that_letter():
    """It names webhook, reason and the millisecond; --as-event for what was no event, --again for what was handled."""
    words = shlex.split(replay_command(shown()))
    assert words[:3] == ["dispatcher", "dead-letters", "replay"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert (options["--subscription"], options["--reason"]) == ("wh_1", "gone")
    assert (parse_rfc3339(options["--since"]), parse_rfc3339(options["--until"])) == (AT_MS, AT_MS + 1)
    assert "--as-event --reason undecodable" in replay_command(bad(kept=True))
    handled = ShownLetter("t", letter_of(), letter_of().told(), True)
    assert replay_command(handled).endswith(" --again")
    assert replay_command(shown(read_letter(0, 0, 0, None, None, ()))) is None
    forged = DeliveryRecord("del_1", "wh_1; rm -rf ~", "acme", 6, 0, 5, None, ORIGIN, "gone", 1, "e")
    assert "'wh_1; rm -rf ~'" in replay_command(shown(letter_of(forged)))


def test_who_copies_the_command_knows_what_else_it_takes():
    """Below the command it is said which letters go with it, and how to count them."""
    lines = lines_of(shown())
    at = lines.index(f"  {replay_command(shown())}")
    assert "the same webhook, reason and millisecond; --dry-run" in lines[at + 1]
    assert "the same reason and millisecond" in "\n".join(lines_of(bad(kept=True)))


@pytest.mark.parametrize("depth", [90, 500, 5_000, 200_000])
def test_a_body_nested_however_deeply_is_told(depth, capsys):
    """What is nested too deeply to be laid out is shown as text; secrets in it are masked in either way."""
    value = b'{"a":' * depth + b'{"password":"hunter2"}' + b"}" * depth
    view = shown(letter_of(value=value))
    assert any('"a":' in line for line in lines_of(view))
    told = letter_json(view)
    assert ("json" in told["body"]) is (depth < 100)
    print_strange_json(told)
    assert "hunter2" not in "\n".join((*lines_of(view), capsys.readouterr().out))


def test_headers_with_secret_names_are_masked():
    """An extension of the event that is called a token is not shown, on the terminal or in JSON."""
    letter = letter_of()
    letter.headers = (*letter.headers, ("ce_accesstoken", b"t0p"), ("ce_cookie", b"t0p"))
    view = shown(letter)
    assert "t0p" not in "\n".join(lines_of(view)) + json.dumps(letter_json(view))
    assert {"name": "ce_accesstoken", "value": "***"} in letter_json(view)["headers"]


def test_every_reason_has_words():
    """Whatever the reason, the one who is on call reads what to look at."""
    for reason in DeadLetterReason:
        assert re.search(rf"{reason}: \w+", "\n".join(lines_of(bad(reason, kept=True))))


def test_a_long_body_is_cut_on_the_terminal_only():
    """A large body doesn't scroll everything else away; JSON has all of it."""
    view = shown(letter_of(value=b'"' + b"x" * 100_000 + b'"'))
    lines = lines_of(view)
    assert any("--json prints them" in line for line in lines)
    assert max(map(len, lines)) < 20_000
    assert len(letter_json(view)["body"]["json"]) == 100_000


def test_a_survey_counts_in_rows_and_says_what_is_left_out():
    """The largest rows come first, the rest in one; hours end with the latest; ids of the newest are named."""
    choice = LetterChoice(DeadLetterFilter())
    for number in range(30):
        record = DeliveryRecord(
            f"del_{number}", f"wh_{number % 15}", "acme", 6, 0, 5, None, ORIGIN, "gone", 500 if number else 0, "e"
        )
        letter = read_letter(0, number, AT_MS + number * 3_600_000, None, VALUE, encode_headers(record, ()))
        choice.take(letter)
    choice.take(letter)
    lines = list(survey_lines(Survey("webhooks.dead-letter", choice, [letter]), 3))
    assert lines[0] == "30 dead letters on webhooks.dead-letter to be dealt with"
    assert lines[1] == "left out: 1 superseded by a later one of the same delivery"
    text = "\n".join(lines)
    assert re.search(r"status code  count\n500             29   97%  █+\nnone             1    3%  █\n", text)
    assert re.search(r"12 others +24   80%\n", text)
    assert re.search(r"27 hours before +27   90%\n2026-01-16 13:00", text)
    assert lines[-1].endswith("del_29  gone")
    told = survey_json(Survey("t", choice, []))
    assert (told["count"], told["superseded"], len(told["by"]["hour"])) == (30, 1, 30)
    assert told["by"]["status"] == [{"value": 500, "count": 29}, {"value": "none", "count": 1}]


def test_an_empty_survey_is_one_line():
    """Nothing to do is said in one line."""
    survey = Survey("t", LetterChoice(DeadLetterFilter()), [])
    assert list(survey_lines(survey, 3)) == ["0 dead letters on t to be dealt with"]
