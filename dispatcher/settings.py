"""Frozen settings, one type an area; `dispatcher.config` fills them from the environment."""

import datetime as dt
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from dispatcher.core.model import RetryTier
from dispatcher.core.retry import DEFAULT_TIERS

Network = IPv4Network | IPv6Network

DELIVER = "deliver"
DEAD_LETTER = "dead-letter"


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka, and how patient to be with it."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    session_timeout_ms: int = 30_000
    heartbeat_interval_ms: int = 3_000
    rebalance_timeout_ms: int = 30_000
    max_poll_interval_ms: int = 300_000
    request_timeout_ms: int = 40_000


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """Which topics are read and written, and how the own ones are made.

    Attributes:
        source_topics: Names; empty where `source_pattern` is set.
        source_pattern: A regular expression starting with `^`; topics under the own prefix never match.
        start_from: `latest`, `earliest` or an aware time: where a group without offsets starts.
        default_workspace: Workspace of events that name none; None dead-letters them.
        max_event_bytes: Bound on key + value + headers of one event.
    """

    source_topics: tuple[str, ...] = ("events",)
    source_pattern: str | None = None
    start_from: str | dt.datetime = "latest"
    consumer_group: str = "webhook-dispatcher"
    prefix: str = "webhooks"
    tiers: tuple[RetryTier, ...] = DEFAULT_TIERS
    partitions: int = 8
    replication: int = -1
    retention_days: int = 7
    dead_letter_retention_days: int = 30
    max_event_bytes: int = 1_048_576
    default_workspace: str | None = None
    outcomes: bool = False


@dataclass(frozen=True, slots=True)
class MongoSettings:
    """Where subscriptions, keys and the delivery log are."""

    uri: str = field(repr=False)
    database: str = "webhooks"
    delivery_retention_days: int = 30


@dataclass(frozen=True, slots=True)
class SendSettings:
    """What may be sent to, by whom it says it is sent, and how much at a time.

    Attributes:
        circuit_wait_ms: How long a delivery's last attempt waits for an open circuit.
    """

    allow_http: bool = False
    allowed_networks: tuple[Network, ...] = ()
    allowed_ports: frozenset[int] = frozenset()
    forbidden_networks: tuple[Network, ...] = ()
    egress_proxy: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    user_agent: str = "Dispatcher-Webhooks/1.0"
    max_in_flight: int = 4096
    max_in_flight_per_webhook: int = 4096
    circuit_wait_ms: int = 3_600_000


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the API, the console and the metrics page listen; port 0 takes a free one.

    Attributes:
        trusted_proxies: Reverse proxies whose X-Forwarded-For says who calls the API.
    """

    api_host: str = "127.0.0.1"
    api_port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    trusted_proxies: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """What one workspace may have and do; what is counted by time is counted in each API process by itself."""

    webhooks: int = 1_000
    api_keys: int = 100
    requests_per_second: int = 200
    test_events_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class CatalogueSettings:
    """The event catalogue: its folder (None: the shipped one), and what an event outside it does.

    Attributes:
        policy: `deliver` or `dead-letter`.
    """

    schemas_dir: Path | None = None
    policy: str = DELIVER


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The process's own log: `console` or `json`, and the lowest level shown."""

    format: str = "json"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of one process."""

    kafka: KafkaSettings
    mongo: MongoSettings
    encryption_keys: tuple[bytes, ...] = field(repr=False)
    topics: TopicSettings = field(default_factory=TopicSettings)
    send: SendSettings = field(default_factory=SendSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    quotas: QuotaSettings = field(default_factory=QuotaSettings)
    catalogue: CatalogueSettings = field(default_factory=CatalogueSettings)
    log: LogSettings = field(default_factory=LogSettings)
    auto_disable_days: int = 5
    local_dir: Path = Path(".local")
    tracing: bool = False
