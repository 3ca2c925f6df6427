"""The process's own log: structlog for our lines, and the libraries' stdlib lines through the same end.

A warning that repeats (a client that can't connect says so many times a second) is shown about once in ten
seconds, with the number of those that were held back.
"""

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from dispatcher.settings import LogSettings

REPEAT_SECONDS = 10.0
_KEYS_KEPT = 1024
_QUIET_BELOW_DEBUG = ("asyncio", "aiokafka", "aiohttp.access", "pymongo", "motor")
_FETCHER = "aiokafka.consumer.fetcher"


def configure(
    settings: LogSettings,
    *,
    stream: TextIO | None = None,
    fields: Mapping[str, object] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Set the log up; every logger of this process, made before or after, then writes to one place.

    Args:
        settings: Form and lowest level.
        stream: Where lines go; None: standard error.
        fields: Put on every line, such as the worker's number.
        monotonic: Seconds that never go back, for the bound on repeated warnings.
    """
    stream = stream or sys.stderr
    level = getattr(logging, settings.level.upper())
    shared = _shared_processors(dict(fields or {}))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(without_first_steps)
    handler.addFilter(RepeatFilter(REPEAT_SECONDS, monotonic))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                _add_repeated,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_ends(settings, stream),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET_BELOW_DEBUG:
        # Their info lines tell of every fetch and every request.
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    logging.getLogger(_FETCHER).setLevel(min(level, logging.INFO))
    logging.getLogger(_FETCHER).addFilter(loss_as_error)
    logging.captureWarnings(capture=True)


def without_first_steps(record: logging.LogRecord) -> bool:
    """Leave out what aiokafka calls an error while a new cluster makes its first coordinator: it asks again by itself.

    Where that lasts, the worker isn't ready and says which groups it has not joined.
    """
    return not (record.name.startswith("aiokafka") and "CoordinatorNotAvailable" in record.getMessage())


def loss_as_error(record: logging.LogRecord) -> bool:
    """Make an error of what aiokafka's fetcher tells in passing: the next record to read is not on its topic any more.

    It goes on at the topic's beginning. The fetcher's other lines have the level that aiokafka's have.
    """
    if "is out of range" in str(record.msg):
        record.levelno, record.levelname = logging.ERROR, "ERROR"
        record.msg = f"records expired unread, or the topic was made anew: {record.msg}"
        return True
    return record.levelno >= logging.getLogger("aiokafka").level


class RepeatFilter(logging.Filter):
    """Lets a warning of one logger and message through once in a while, and counts the others.

    Lines below warning always pass. Messages are told apart before their arguments are filled in.

    Args:
        seconds: How long an equal warning is held back.
        monotonic: Seconds that never go back.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._seconds = seconds
        self._monotonic = monotonic
        self._seen: OrderedDict[tuple[str, int, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is shown; one that follows held back ones gets their number as `repeated`."""
        if record.levelno < logging.WARNING:
            return True
        message = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        key = (record.name, record.levelno, str(message)[:500])
        now = self._monotonic()
        shown_at, held_back = self._seen.get(key, (None, 0))
        if shown_at is not None and now - shown_at < self._seconds:
            self._seen[key] = (shown_at, held_back + 1)
            return False
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > _KEYS_KEPT:
            self._seen.popitem(last=False)
        if held_back:
            record.repeated = held_back
        return True


def _shared_processors(fields: Mapping[str, object]) -> list[Processor]:
    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for name, value in fields.items():
            event.setdefault(name, value)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        add_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _ends(settings: LogSettings, stream: TextIO) -> list[Processor]:
    if settings.format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_as_json)]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]


def _add_repeated(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    repeated = getattr(event.get("_record"), "repeated", None)
    if repeated is not None:
        event["repeated"] = repeated
    return event


def _as_json(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_for_command(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Set the log up for a short command, which says itself what went wrong: nothing unless the level is debug."""
    debugging = settings.level == "debug"
    configure(LogSettings(format=settings.format, level="debug" if debugging else "error"), stream=stream)
    if not debugging:
        for name in (*_QUIET_BELOW_DEBUG, _FETCHER):
            logging.getLogger(name).setLevel(logging.CRITICAL)
