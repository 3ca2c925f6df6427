"""The process's own log."""

import io
import json
import logging

import pytest
import structlog

from dispatcher.app.logging import RepeatFilter, configure, configure_for_command
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.pipeline import failure_log
from dispatcher.settings import LogSettings
from tests.unit.mongo.samples import entry


@pytest.fixture(autouse=True)
def _log_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("aiokafka", "asyncio", "aiohttp.access")}
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_own_and_foreign_lines_are_json_objects_with_the_same_members():
    """A log collector reads our lines and the libraries' alike, with the worker's number on each."""
    stream = io.StringIO()
    configure(LogSettings(), stream=stream, fields={"worker": 3})
    structlog.get_logger("dispatcher.test").info("delivered", attempt=2)
    logging.getLogger("library").warning("slow %s", "disk")
    own, foreign = lines(stream)
    assert own.items() >= {"event": "delivered", "attempt": 2, "worker": 3, "level": "info"}.items()
    assert foreign.items() >= {"event": "slow disk", "logger": "library", "worker": 3, "level": "warning"}.items()
    assert own["timestamp"].endswith("Z")
    assert own["logger"] == "dispatcher.test"


def test_an_exception_stands_in_its_line():
    """A traceback is a member of the JSON object and doesn't break the line."""
    stream = io.StringIO()
    configure(LogSettings(), stream=stream)
    try:
        int("many")
    except ValueError:
        structlog.get_logger("t").exception("failed", value=object)
    (line,) = lines(stream)
    assert "ValueError: invalid literal" in line["exception"]


def test_lines_below_the_level_are_left_out():
    """The level holds for our lines and for the libraries'."""
    stream = io.StringIO()
    configure(LogSettings(level="warning"), stream=stream)
    structlog.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    structlog.get_logger("a").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_chatty_libraries_are_heard_only_when_debugging():
    """Kafka's client tells of each fetch; that is shown at debug only."""
    for level, expected in (("info", []), ("debug", ["fetched"])):
        stream = io.StringIO()
        configure(LogSettings(level=level), stream=stream)
        logging.getLogger("aiokafka").info("fetched")
        assert [line["event"] for line in lines(stream)] == expected


def test_the_console_form_is_for_people():
    """On a terminal a line is text, and without colours where it is none."""
    stream = io.StringIO()
    configure(LogSettings(format="console"), stream=stream)
    structlog.get_logger("t").info("delivered", attempt=2)
    assert "delivered" in stream.getvalue()
    assert "attempt=2" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_warning_that_repeats_is_shown_once_in_a_while_with_the_number_held_back():
    """A client that can't connect doesn't fill the disk, whatever its arguments; other lines are not held back."""
    stream, now = io.StringIO(), [100.0]
    configure(LogSettings(), stream=stream, monotonic=lambda: now[0])
    kafka = logging.getLogger("aiokafka")
    for node in range(50):
        kafka.error("can't connect to node %s", node)
    structlog.get_logger("t").warning("other")
    for _ in range(3):
        structlog.get_logger("t").info("chatter")
    now[0] += 10
    kafka.error("can't connect to node %s", 50)
    kafka.error("can't connect to node %s", 51)
    found = lines(stream)
    assert [line["event"] for line in found] == [
        "can't connect to node 0",
        "other",
        "chatter",
        "chatter",
        "chatter",
        "can't connect to node 50",
    ]
    assert found[-1]["repeated"] == 49
    assert "repeated" not in found[0]


def test_our_own_repeated_warnings_are_held_back_as_well():
    """The bound is on every logger."""
    stream = io.StringIO()
    configure(LogSettings(), stream=stream, monotonic=lambda: 0.0)
    for _ in range(5):
        structlog.get_logger("t").warning("stale", age=1)
    assert len(lines(stream)) == 1


def test_the_filter_forgets_what_is_long_gone():
    """Messages that never come again don't fill the memory."""
    repeat = RepeatFilter(10.0, lambda: 0.0)
    for number in range(5000):
        repeat.filter(logging.LogRecord("n", logging.WARNING, "p", 1, f"message {number}", (), None))
    assert len(repeat._seen) <= 1024


def test_failed_attempts_of_several_webhooks_are_told_of_side_by_side(monkeypatch):
    """The bound on equal warnings doesn't take one webhook's failure for another's, and a line is one JSON object."""
    stream = io.StringIO()
    configure(LogSettings(), stream=stream, monotonic=lambda: 0.0)
    monkeypatch.setattr(failure_log, "log", structlog.get_logger("dispatcher.test"))
    failures = failure_log.FailureLog()
    for number in range(20):
        failures.failed(entry(number % 2, subscription_id=f"wh_{number % 2}", status=DeliveryStatus.FAILED), "1m")
    found = lines(stream)
    assert [line["webhook_id"] for line in found] == ["wh_0", "wh_1"] * 3
    assert found[0].items() >= {"event": "attempt failed", "level": "info", "next": "dead_letter"}.items()


def test_a_short_command_leaves_the_talking_to_its_own_sentence():
    """A library's error line doesn't stand beside the command's, unless debugging."""
    stream = io.StringIO()
    configure_for_command(LogSettings(), stream=stream)
    logging.getLogger("aiokafka").error("unable to connect")
    structlog.get_logger("t").warning("hm")
    assert stream.getvalue() == ""
    configure_for_command(LogSettings(level="debug"), stream=stream)
    logging.getLogger("aiokafka").error("unable to connect")
    assert "unable to connect" in stream.getvalue()


def test_the_first_coordinator_of_a_new_cluster_is_no_error_to_show():
    """What aiokafka says while a new cluster makes its first coordinator is left out; its other errors are shown."""
    stream = io.StringIO()
    configure(LogSettings("json", "info"), stream=stream)
    aiokafka = logging.getLogger("aiokafka.consumer.group_coordinator")
    aiokafka.error("Group Coordinator Request failed: %s", "[Error 15] GroupCoordinatorNotAvailableError")
    aiokafka.error("Heartbeat failed: %s", "[Error 27]")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["Heartbeat failed: [Error 27]"]
