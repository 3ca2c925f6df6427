"""The process log's lines about failed attempts."""

import pytest
import structlog

from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.exchange import SendFailure
from dispatcher.core.model import Origin
from dispatcher.core.sealing import SealPurpose, binding
from dispatcher.pipeline import failure_log
from dispatcher.pipeline.failure_log import LINES_A_SECOND, LINES_A_WEBHOOK, MAX_WEBHOOKS, WINDOW_MS, FailureLog
from tests.fakes.http import answer, failure
from tests.unit.pipeline.world import KEYRING, WORKSPACE, delivery_id, eventually, subscription

NOW_MS = 1_768_473_000_000


@pytest.fixture
def lines(monkeypatch):
    """What is logged, as dicts."""
    caught = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(None, processors=[caught], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr(failure_log, "log", logger)
    return caught.entries


def entry(webhook_id="wh_a", at_ms=NOW_MS, **fields):
    made = LogEntry(
        "del_1", "ws", webhook_id, "evt_1", "user.created", "", Origin("events", 0, 7, NOW_MS), "", 2,
        DeliveryStatus.RETRYING, at_ms, response_code=503, error="the endpoint answered 503",
        next_attempt_at_ms=at_ms + 60_000,
    )  # fmt: skip
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_line_says_whose_attempt_failed_how_and_what_follows(lines):
    """Somebody who has a delivery, event or webhook id finds the line, and what happens next."""
    FailureLog().failed(entry(), "1m")
    assert lines == [
        {
            "event": "attempt failed",
            "log_level": "info",
            "delivery_id": "del_1",
            "event_id": "evt_1",
            "webhook_id": "wh_a",
            "workspace_id": "ws",
            "attempt": 2,
            "status": 503,
            "next": "retry.1m",
            "due_at": "2026-01-15T10:31:00Z",
        }
    ]


def test_the_last_line_of_a_delivery(lines):
    """What failed for good says why; without a status code there are words, and a replay is named."""
    FailureLog().failed(
        entry(
            status=DeliveryStatus.FAILED, reason="attempts_exhausted", response_code=0, error="dns: no such name",
            next_attempt_at_ms=None, run="rpl_1",
        )
    )  # fmt: skip
    (line,) = lines
    assert (line["next"], line["reason"], line["error"]) == ("dead_letter", "attempts_exhausted", "dns: no such name")
    assert line["replay_id"] == "rpl_1"
    assert not {"status", "due_at"} & set(line)


def test_what_failed_unsent_is_no_attempt(lines):
    """A delivery that ends without another attempt has a line that says so."""
    FailureLog().failed(entry(attempt=0, status=DeliveryStatus.FAILED, reason="expired", response_code=0, error="late"))
    assert lines[0]["event"] == "delivery failed, nothing sent"
    assert "attempt" not in lines[0]


def test_a_broken_endpoint_neither_floods_the_log_nor_hides_another(lines):
    """Of 1,000 failures a second a few are shown, and the one of another webhook among them is."""
    failures = FailureLog()
    for number in range(1000):
        failures.failed(entry(at_ms=NOW_MS + number), "1m")
        if number == 500:
            failures.failed(entry("wh_b", at_ms=NOW_MS + number), "1m")
    assert [line["webhook_id"] for line in lines] == ["wh_a"] * LINES_A_WEBHOOK + ["wh_b"]
    assert failures.left_out == 1000 - LINES_A_WEBHOOK


def test_what_was_left_out_is_counted_in_the_next_line(lines):
    """No failure goes uncounted: shown ones and those that they say were left out are all there were."""
    failures = FailureLog()
    for number in range(100):
        failures.failed(entry(at_ms=NOW_MS + number * WINDOW_MS // 50), "1m")
    failures.failed(entry(at_ms=NOW_MS + 3 * WINDOW_MS), "1m")
    assert len(lines) == 2 * LINES_A_WEBHOOK + 1
    assert sum(line.get("left_out", 0) for line in lines) + len(lines) == 101
    assert "left_out" not in lines[0]


def test_the_whole_process_has_a_bound_as_well(lines):
    """Where everything fails at once the log takes so many lines a second; in the next second there is room again."""
    failures = FailureLog()
    for number in range(3 * LINES_A_SECOND):
        failures.failed(entry(f"wh_{number}"), "1m")
    assert len(lines) == LINES_A_SECOND
    failures.failed(entry("wh_299", at_ms=NOW_MS + 1000), "1m")
    assert (lines[-1]["webhook_id"], lines[-1]["left_out"]) == ("wh_299", 1)


def test_a_clock_that_is_set_back_silences_nobody(lines):
    """A webhook's window that lies in the future is begun anew."""
    failures = FailureLog()
    for _ in range(10):
        failures.failed(entry(), "1m")
    failures.failed(entry(at_ms=NOW_MS - 3_600_000), "1m")
    assert len(lines) == LINES_A_WEBHOOK + 1


def test_it_forgets_webhooks(lines):
    """However many webhooks fail, a bounded number is remembered: those that failed last."""
    failures = FailureLog()
    for number in range(MAX_WEBHOOKS + 10):
        failures.failed(entry(f"wh_{number}"), "1m")
    assert len(failures._seen) == MAX_WEBHOOKS
    assert "wh_9" not in failures._seen


def test_strangers_words_print_as_themselves(lines):
    """An event's id and an endpoint's words neither turn a terminal's line around nor show what looks like a secret."""
    failures = FailureLog()
    failures.failed(entry(event_id="evt_\u202egnp", response_code=0, error="protocol: \x1b[2J whsec_abcdef"), "1m")
    assert lines[0]["event_id"] == "evt_\\u202egnp"
    assert lines[0]["error"] == "protocol: \\x1b[2J whsec_***"


async def test_each_failed_attempt_has_one_line_and_a_success_none(worlds, lines):
    """An event that fails, is tried again and then delivered leaves one line; one that fails to the end one a step."""
    world = worlds("50ms", "1h")
    world.index.put(subscription("wh_a"))
    world.index.put(subscription("wh_b", max_attempts=2))
    world.sender.answers = lambda sent: answer(500 if sent.subscription_id == "wh_b" or sent.attempt == 1 else 200)
    world.add_source()
    world.add_own("retry.50ms")
    await world.start()
    world.publish(1)
    await eventually(lambda: len(world.broker.on_topic("webhooks.dead-letter")) == 1)
    await eventually(world.caught_up)
    mine = [line for line in lines if line["webhook_id"] == "wh_a"]
    others = [line for line in lines if line["webhook_id"] == "wh_b"]
    assert [(line["delivery_id"], line["event_id"], line["attempt"], line["next"]) for line in mine] == [
        (delivery_id(1, "wh_a"), "evt_1", 1, "retry.50ms")
    ]
    assert [(line["attempt"], line["next"]) for line in others] == [(1, "retry.50ms"), (2, "dead_letter")]


@pytest.mark.parametrize("came", [answer(500), answer(410), failure(SendFailure.PROTOCOL), failure(SendFailure.TLS)])
async def test_no_line_holds_a_secret_or_an_address(worlds, lines, came):
    """Keys, signing secrets, static headers, paths and bodies stay out, whatever the endpoint echoes."""
    world = worlds("1h")
    aad = binding(WORKSPACE, "wh_a", SealPurpose.API_KEY)
    api_key = KEYRING.seal(b"key-of-wh-a", nonce=b"n" * 12, aad=aad)
    webhook = subscription(
        "wh_a", url="https://a.example.com/hook/t0ken?sig=qu3ry", api_key=api_key, headers=(("X-Own", "st4tic"),)
    )
    world.index.put(webhook)
    world.sender.answers = lambda sent: came if came.status == 0 else answer(came.status, body=sent.request.head)
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(world.caught_up)
    assert lines
    shown = repr(lines)
    for hidden in ("key-of-wh-a", "s3cret", "st4tic", "t0ken", "qu3ry", "a.example.com"):
        assert hidden not in shown
