"""Puts the settings together: the environment over the running local stack over the defaults.

Everything that is wrong is said at once, a line for each setting.
"""

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from dispatcher.config.table import PREFIX, SETTINGS, Setting, by_full_name
from dispatcher.config.values import MAKE_KEY, shown
from dispatcher.core.errors import SettingsError
from dispatcher.settings import (
    CatalogueSettings,
    KafkaSettings,
    LogSettings,
    MongoSettings,
    QuotaSettings,
    SendSettings,
    ServerSettings,
    Settings,
    TopicSettings,
)

_KAFKA = "KAFKA_BOOTSTRAP_SERVERS"
_MONGO = "MONGO_URI"
_KEYS = "ENCRYPTION_KEYS"
_TEST_PREFIX = PREFIX + "TEST_"
_SERVICE_LINK = re.compile(r"DISPATCHER_(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)")
_REQUEST_MARGIN_MS = 10_000


class Need(StrEnum):
    """What a command can't do without."""

    KAFKA = "kafka"
    MONGO = "mongo"
    ENCRYPTION_KEYS = "encryption_keys"


_NEEDED = {Need.KAFKA: _KAFKA, Need.MONGO: _MONGO, Need.ENCRYPTION_KEYS: _KEYS}


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """What the running local stack offers; None: it doesn't.

    Attributes:
        kafka_bootstrap: `host:port`.
        mongo_uri: A connection string.
        encryption_key: Base64 of 32 bytes.
    """

    kafka_bootstrap: str | None = None
    mongo_uri: str | None = None
    encryption_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting as it holds.

    Attributes:
        name: Environment variable.
        value: As text; secrets masked; empty where it is absent.
        origin: `environment`, `local stack` or `default`.
        default: What holds where it isn't set.
        meaning: What it does, in a line.
    """

    name: str
    value: str
    origin: str
    default: str
    meaning: str


def local_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of the local stack, which must be known before the other settings can be read.

    Raises:
        SettingsError: Its setting is wrong.
    """
    setting = by_full_name()[PREFIX + "LOCAL_DIR"]
    reading = _Reading(os.environ if environ is None else environ)
    value = reading.value(setting, setting.default)
    reading.raise_problems()
    return Path(value)


def local_wanted(environ: Mapping[str, str] | None = None) -> bool:
    """Say whether Kafka or MongoDB has no configured address, so that a local stack is worth looking for."""
    reading = _Reading(os.environ if environ is None else environ)
    return any(reading.text(PREFIX + name) is None for name in (_KAFKA, _MONGO))


def load(
    environ: Mapping[str, str] | None = None,
    *,
    local: LocalAddresses | None = None,
    run_local: bool = False,
    needs: Collection[Need] = tuple(Need),
    terminal: bool = False,
) -> Settings:
    """Read every setting.

    A configured address always wins; Kafka and MongoDB are resolved each by itself. Where one of them is the
    local stack's, the defaults are those of `run --local`.

    Args:
        environ: Variables by name; None: those of this process. Names outside `DISPATCHER_*`, and those of
            tests (`DISPATCHER_TEST_*`), mean nothing.
        local: What the running local stack offers; None where none runs.
        run_local: Take the local defaults in any case: the command line said `--local`.
        needs: What must not be missing. What isn't needed and isn't there is left empty.
        terminal: Whether the log goes to a terminal, which decides its form.

    Raises:
        SettingsError: With one line for each setting that is unknown, wrong or missing.
    """
    reading = _Reading(os.environ if environ is None else environ)
    offered = {_KAFKA: local.kafka_bootstrap, _MONGO: local.mongo_uri} if local else {}
    taken = {name: text for name, text in offered.items() if text and reading.text(PREFIX + name) is None}
    is_local = run_local or bool(taken)
    if local and local.encryption_key and is_local:
        taken[_KEYS] = local.encryption_key
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        default = taken.get(setting.name, setting.local_default if is_local else None) or setting.default
        if setting.name == "LOG_FORMAT":
            default = "console" if terminal else "json"
        found[setting.place] = reading.value(setting, default)
    reading.problems.extend(_unknown(reading.environ))
    reading.problems.extend(_missing(reading, found, needs))
    reading.problems.extend(_contradictions(reading, found))
    reading.raise_problems()
    return _assemble(found)


def effective(settings: Settings, environ: Mapping[str, str] | None = None) -> Sequence[EffectiveSetting]:
    """Return every setting as it holds, in the order to show them, secrets masked.

    Args:
        settings: What `load` made of the same environment.
        environ: Variables by name; None: those of this process.
    """
    reading = _Reading(os.environ if environ is None else environ)
    plain = _assemble({s.place: s.read(s.default) if s.default is not None else None for s in SETTINGS})
    rows = []
    for setting in SETTINGS:
        value = _held(settings, setting)
        if reading.text(setting.full_name) is not None:
            origin = "environment"
        else:
            own_default = setting.name == "LOG_FORMAT" or value == _held(plain, setting)
            origin = "default" if own_default else "local stack"
        rows.append(
            EffectiveSetting(
                setting.full_name,
                ("(hidden)" if value else "") if setting.secret else _as_text(value),
                origin,
                setting.default_text(),
                setting.meaning,
            )
        )
    return rows


class _Reading:
    """One reading of the environment, and the problems met so far."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []
        self._wrong: set[str] = set()

    def text(self, full_name: str) -> str | None:
        """Return what is set; an empty variable counts as not set, as compose files leave them."""
        return self.environ.get(full_name, "").strip() or None

    def value(self, setting: Setting, default: str | None) -> Any:
        text = self.text(setting.full_name)
        if text is None:
            text = default
        if text is None:
            return None
        try:
            return setting.read(text)
        except ValueError as error:
            self._wrong.add(setting.name)
            self.problems.append(f"{setting.full_name} {error}")
            return None

    def was_wrong(self, name: str) -> bool:
        return name in self._wrong

    def raise_problems(self) -> None:
        if self.problems:
            raise SettingsError(self.problems)


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    known = by_full_name()
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name.startswith(_TEST_PREFIX) or name in known:
            continue
        if _SERVICE_LINK.fullmatch(name):
            yield (
                f"{shown(name)[1:-1]} is no setting: Kubernetes made it for a service of that name; "
                "set enableServiceLinks: false in the pod's specification"
            )
            continue
        # Without the prefix, which makes everything alike.
        close = difflib.get_close_matches(name.removeprefix(PREFIX)[:100], [s.name for s in SETTINGS], n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else "see: dispatcher settings --help"
        yield f"{shown(name)[1:-1]} is no setting; {hint}"


def _missing(reading: _Reading, found: Mapping[str, Any], needs: Collection[Need]) -> Iterator[str]:
    places = {setting.name: setting.place for setting in SETTINGS}
    absent = [
        name
        for need, name in _NEEDED.items()
        if need in needs and found[places[name]] is None and not reading.was_wrong(name)
    ]
    if not absent:
        return
    addresses = [PREFIX + name for name in absent if name != _KEYS]
    folder = found[places["LOCAL_DIR"]]
    if len(addresses) > 1:
        yield (
            f"{' and '.join(addresses)} are not set and no local stack runs in {folder}: set them, or start a "
            "local one with: dispatcher run --local"
        )
    elif addresses:
        what = "Kafka" if _KAFKA in absent else "MongoDB"
        yield (
            f"{addresses[0]} is not set and no local {what} runs in {folder}: set it, or start a local one with: "
            "dispatcher run --local"
        )
    configured = any(reading.text(PREFIX + name) for name in (_KAFKA, _MONGO))
    if _KEYS in absent and (configured or not addresses):
        yield f"{PREFIX}{_KEYS} is not set; make a key, once for all processes, with: {MAKE_KEY}"


def _contradictions(reading: _Reading, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _kafka_contradictions(reading, found)
    names, prefix = found["topics.source_topics"], found["topics.prefix"]
    if isinstance(names, tuple) and prefix is not None:
        own = [name for name in names if name.startswith(f"{prefix}.")]
        if own:
            yield (
                f"{PREFIX}SOURCE_TOPICS has {own[0]}, which is under the own prefix; leave it out, "
                f"or choose another {PREFIX}TOPIC_PREFIX"
            )
    if found["topics.replication"] == 0:
        yield f"{PREFIX}TOPIC_REPLICATION is 0; write a number from 1, or -1 for the broker's default"
    api, metrics = (found[f"server.{role}_port"] for role in ("api", "metrics"))
    if api and api == metrics and found["server.api_host"] == found["server.metrics_host"]:
        yield f"{PREFIX}METRICS_PORT is {metrics}, the API's port as well; choose another, or 0 for a free one"


def _kafka_contradictions(reading: _Reading, found: Mapping[str, Any]) -> Iterator[str]:
    protocol = found["kafka.security_protocol"]
    if protocol is None:
        return
    for name in ("SASL_USERNAME", "SASL_PASSWORD"):
        given = found[f"kafka.{name.lower()}"] is not None
        if protocol.startswith("SASL_") and not given and not reading.was_wrong(f"KAFKA_{name}"):
            yield f"{PREFIX}KAFKA_{name} is not set; {PREFIX}KAFKA_SECURITY_PROTOCOL={protocol} needs it"
        if given and not protocol.startswith("SASL_"):
            yield (
                f"{PREFIX}KAFKA_{name} is set and would not be used; set {PREFIX}KAFKA_SECURITY_PROTOCOL=SASL_SSL "
                "(or SASL_PLAINTEXT), or leave it out"
            )
    for name in ("SSL_CAFILE", "SSL_CERTFILE", "SSL_KEYFILE"):
        if found[f"kafka.{name.lower()}"] is not None and not protocol.endswith("SSL"):
            yield (
                f"{PREFIX}KAFKA_{name} is set and would not be used; set {PREFIX}KAFKA_SECURITY_PROTOCOL=SSL "
                "(or SASL_SSL), or leave it out"
            )
    for name, other in (("CERTFILE", "KEYFILE"), ("KEYFILE", "CERTFILE")):
        alone = found[f"kafka.ssl_{name.lower()}"] is not None and found[f"kafka.ssl_{other.lower()}"] is None
        if alone and not reading.was_wrong(f"KAFKA_SSL_{other}"):
            yield f"{PREFIX}KAFKA_SSL_{other} is not set; {PREFIX}KAFKA_SSL_{name} needs it"
    heartbeat, session = found["kafka.heartbeat_interval_ms"], found["kafka.session_timeout_ms"]
    if heartbeat is not None and session is not None and heartbeat >= session:
        yield (
            f"{PREFIX}KAFKA_HEARTBEAT_INTERVAL_MS is {heartbeat}, and the session ends after {session}; "
            "write a third of the session timeout or less"
        )


def _assemble(found: Mapping[str, Any]) -> Settings:
    areas: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        if found[setting.place] is not None:
            areas.setdefault(setting.area, {})[setting.field] = found[setting.place]
    kafka, mongo, topics = areas["kafka"], areas["mongo"], areas["topics"]
    kafka.setdefault("bootstrap_servers", "")
    # JoinGroup is bound by the request time-out, so it must outlast a rebalance.
    kafka["request_timeout_ms"] = max(_default_request_timeout_ms(), kafka["rebalance_timeout_ms"] + _REQUEST_MARGIN_MS)
    mongo.setdefault("uri", "")
    if isinstance(topics["source_topics"], str):
        topics["source_pattern"], topics["source_topics"] = topics["source_topics"], ()
    return Settings(
        kafka=KafkaSettings(**kafka),
        mongo=MongoSettings(**mongo),
        topics=TopicSettings(**topics),
        send=SendSettings(**areas["send"]),
        server=ServerSettings(**areas["server"]),
        quotas=QuotaSettings(**areas["quotas"]),
        catalogue=CatalogueSettings(**areas["catalogue"]),
        log=LogSettings(**areas["log"]),
        **{"encryption_keys": (), **areas[""]},
    )


def _default_request_timeout_ms() -> int:
    return next(int(f.default) for f in fields(KafkaSettings) if f.name == "request_timeout_ms")  # type: ignore[arg-type]


def _held(settings: Settings, setting: Setting) -> Any:
    area: Any = getattr(settings, setting.area) if setting.area else settings
    if setting.name == "SOURCE_TOPICS" and area.source_pattern is not None:
        return area.source_pattern
    return getattr(area, setting.field)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):
        return ",".join(str(member) for member in sorted(value))
    if isinstance(value, tuple):
        return ",".join(str(getattr(member, "name", member)) for member in value)
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else str(value)
