"""Every setting, defined once: its name, where its value goes, how it is read, its default and its meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from dispatcher.config import values as v

PREFIX = "DISPATCHER_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: Without the prefix: `KAFKA_BOOTSTRAP_SERVERS`.
        place: Area and field of `dispatcher.settings.Settings`: `kafka.bootstrap_servers`.
        read: Turns its text into its value.
        meaning: What it does, in a line.
        default: The text that is read where it is not set; None: the value is absent.
        default_shown: What to tell people of the default, where the text doesn't say it.
        local_default: The default with the local stack, where it differs.
        secret: Its value is never shown.
        needed: It has no default, and most commands can't do without.
    """

    name: str
    place: str
    read: v.Reader
    meaning: str
    default: str | None = None
    default_shown: str = ""
    local_default: str | None = None
    secret: bool = False
    needed: bool = False

    @property
    def full_name(self) -> str:
        """The environment variable."""
        return PREFIX + self.name

    @property
    def area(self) -> str:
        """The settings type's member that holds it; empty: Settings itself."""
        return self.place.rpartition(".")[0]

    @property
    def field(self) -> str:
        """Its field in the area."""
        return self.place.rpartition(".")[2]

    def default_text(self) -> str:
        """Say what holds where it is not set."""
        text = self.default_shown or self.default or ("required" if self.needed else "none")
        return f"{text} (with the local stack: {self.local_default})" if self.local_default else text


_MILLISECONDS = v.integer(100, 3_600_000)
_DAYS = v.integer(1, 3_650)

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "KAFKA_BOOTSTRAP_SERVERS",
        "kafka.bootstrap_servers",
        v.servers,
        "Kafka's addresses: host:port, several separated by commas",
        default_shown="none; else the running local stack's",
        needed=True,
    ),
    Setting(
        "KAFKA_SECURITY_PROTOCOL",
        "kafka.security_protocol",
        v.choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", upper=True),
        "how to speak to Kafka: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        "PLAINTEXT",
    ),
    Setting(
        "KAFKA_SASL_MECHANISM",
        "kafka.sasl_mechanism",
        v.choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", upper=True),
        "how to sign in to Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        "PLAIN",
    ),
    Setting("KAFKA_SASL_USERNAME", "kafka.sasl_username", v.text_up_to(1000), "user name at Kafka"),
    Setting("KAFKA_SASL_PASSWORD", "kafka.sasl_password", v.secret, "password at Kafka", secret=True),
    Setting(
        "KAFKA_SSL_CAFILE",
        "kafka.ssl_cafile",
        v.file,
        "PEM file of the authorities that sign Kafka's certificate",
        default_shown="the system's",
    ),
    Setting("KAFKA_SSL_CERTFILE", "kafka.ssl_certfile", v.file, "PEM file of the own certificate, for mutual TLS"),
    Setting("KAFKA_SSL_KEYFILE", "kafka.ssl_keyfile", v.file, "PEM file of the own certificate's key"),
    Setting(
        "KAFKA_SESSION_TIMEOUT_MS",
        "kafka.session_timeout_ms",
        _MILLISECONDS,
        "a worker that Kafka hasn't heard of for so long loses its partitions",
        "30000",
    ),
    Setting(
        "KAFKA_HEARTBEAT_INTERVAL_MS",
        "kafka.heartbeat_interval_ms",
        _MILLISECONDS,
        "how often a worker tells Kafka that it lives; below the session timeout",
        "3000",
    ),
    Setting(
        "KAFKA_REBALANCE_TIMEOUT_MS",
        "kafka.rebalance_timeout_ms",
        _MILLISECONDS,
        "how long Kafka waits for workers to hand over partitions",
        "30000",
    ),
    Setting(
        "KAFKA_MAX_POLL_INTERVAL_MS",
        "kafka.max_poll_interval_ms",
        _MILLISECONDS,
        "a worker that hasn't polled for so long loses its partitions",
        "300000",
    ),
    Setting(
        "MONGO_URI",
        "mongo.uri",
        v.mongo_uri,
        "MongoDB's connection string; it must be a replica set",
        default_shown="none; else the running local stack's",
        secret=True,
        needed=True,
    ),
    Setting("MONGO_DATABASE", "mongo.database", v.database, "name of the database", "webhooks"),
    Setting(
        "SOURCE_TOPICS",
        "topics.source_topics",
        v.sources,
        "topics that events are read from: names separated by commas, or a pattern starting with ^",
        "events",
    ),
    Setting(
        "START_FROM",
        "topics.start_from",
        v.start_from,
        "where a consumer group starts that has no offsets yet: latest, earliest or a time",
        "latest",
        local_default="earliest",
    ),
    Setting(
        "CONSUMER_GROUP",
        "topics.consumer_group",
        v.text_up_to(200),
        "consumer group of the source topics; the other groups' names start with it",
        "webhook-dispatcher",
    ),
    Setting("TOPIC_PREFIX", "topics.prefix", v.topic_prefix, "first part of the own topics' names", "webhooks"),
    Setting(
        "RETRY_TIERS",
        "topics.tiers",
        v.tiers,
        "delays before attempts 2, 3, …: whole numbers with ms, s, m, h or d, the shortest first",
        "1m,5m,30m,1h,6h",
    ),
    Setting("TOPIC_PARTITIONS", "topics.partitions", v.integer(1, 10_000), "partitions of the own topics", "8"),
    Setting(
        "TOPIC_REPLICATION",
        "topics.replication",
        v.integer(-1, 100),
        "replicas of the own topics; -1: the broker's default",
        "-1",
    ),
    Setting(
        "TOPIC_RETENTION_DAYS",
        "topics.retention_days",
        _DAYS,
        "days that own topics keep records, beyond a tier's delay",
        "7",
    ),
    Setting(
        "DEAD_LETTER_RETENTION_DAYS",
        "topics.dead_letter_retention_days",
        _DAYS,
        "days that the dead-letter topic keeps records",
        "30",
    ),
    Setting(
        "MAX_EVENT_BYTES",
        "topics.max_event_bytes",
        v.integer(1_024, 67_108_864),
        "largest event, over key, value and headers",
        "1048576",
    ),
    Setting(
        "ALLOW_HTTP",
        "send.allow_http",
        v.boolean,
        "whether endpoints may be plain http:// URLs",
        "false",
        local_default="true",
    ),
    Setting(
        "ALLOWED_NETWORKS",
        "send.allowed_networks",
        v.networks,
        "private networks that endpoints may be in: CIDRs separated by commas",
        "",
        default_shown="none",
        local_default="127.0.0.0/8,::1/128",
    ),
    Setting(
        "FORBIDDEN_NETWORKS",
        "send.forbidden_networks",
        v.networks,
        "networks that no endpoint may be in, such as public addresses of your own: CIDRs separated by commas; "
        "they win over the allowed ones",
        "",
        default_shown="none",
    ),
    Setting(
        "ALLOWED_PORTS",
        "send.allowed_ports",
        v.ports,
        "ports below 1024 that endpoints may have, apart from 80 and 443",
        "",
        default_shown="none",
    ),
    Setting(
        "EGRESS_PROXY",
        "send.egress_proxy",
        v.proxy,
        "proxy that every delivery goes through: http://[user:password@]host:port; "
        "it resolves the names, so it is what must refuse private addresses",
        secret=True,
    ),
    Setting(
        "CA_BUNDLE",
        "send.ca_bundle",
        v.file,
        "PEM file of authorities that endpoints' certificates may come from, beside the system's",
        default_shown="none",
    ),
    Setting("USER_AGENT", "send.user_agent", v.header_text, "User-Agent of deliveries", "Dispatcher-Webhooks/1.0"),
    Setting(
        "ENCRYPTION_KEYS",
        "encryption_keys",
        v.encryption_keys,
        "keys that seal stored secrets: base64 of 32 bytes, separated by commas; the first encrypts, all decrypt",
        default_shown="required; the local stack has its own",
        secret=True,
        needed=True,
    ),
    Setting(
        "MAX_IN_FLIGHT",
        "send.max_in_flight",
        v.integer(1, 100_000),
        "deliveries that one worker has under way at once",
        "4096",
    ),
    Setting(
        "MAX_IN_FLIGHT_PER_WEBHOOK",
        "send.max_in_flight_per_webhook",
        v.integer(1, 100_000),
        "requests that one worker has under way to one webhook at once, at most; within it the number adapts",
        "4096",
    ),
    Setting(
        "CIRCUIT_WAIT",
        "send.circuit_wait_ms",
        v.duration_ms,
        "how long a delivery's last attempt waits for an endpoint whose circuit is open",
        "1h",
    ),
    Setting(
        "AUTO_DISABLE_DAYS",
        "auto_disable_days",
        v.integer(1, 3_650),
        "days without a success after which a failing webhook is disabled",
        "5",
    ),
    Setting(
        "OUTCOMES_TOPIC",
        "topics.outcomes",
        v.boolean,
        "whether each finished delivery is also written to the outcomes topic",
        "false",
    ),
    Setting("API_HOST", "server.api_host", v.host, "address that the API and the console listen on", "127.0.0.1"),
    Setting("API_PORT", "server.api_port", v.port, "their port; 0: a free one, printed", "8080"),
    Setting(
        "TRUSTED_PROXIES",
        "server.trusted_proxies",
        v.networks,
        "reverse proxies in front of the API, as CIDRs separated by commas: who calls is then what their "
        "X-Forwarded-For says; nobody else's is believed",
        "",
        default_shown="none",
    ),
    Setting(
        "MAX_WEBHOOKS_PER_WORKSPACE",
        "quotas.webhooks",
        v.integer(1, 1_000_000),
        "webhooks that one workspace may have; each is held in every worker's memory",
        "1000",
    ),
    Setting(
        "MAX_API_KEYS_PER_WORKSPACE",
        "quotas.api_keys",
        v.integer(1, 100_000),
        "API keys that one workspace may have; those of `dispatcher api-keys create` count, and are never refused",
        "100",
    ),
    Setting(
        "API_REQUESTS_PER_SECOND",
        "quotas.requests_per_second",
        v.integer(1, 100_000),
        "requests that all API keys of one workspace may send to one API process together, and twice as many at once; "
        "one key at most 100, and 200 at once",
        "200",
    ),
    Setting(
        "TEST_EVENTS_PER_MINUTE",
        "quotas.test_events_per_minute",
        v.integer(1, 6_000),
        "test events that one workspace may send by one API process, 10 at once",
        "60",
    ),
    Setting("METRICS_HOST", "server.metrics_host", v.host, "address of metrics and health checks", "127.0.0.1"),
    Setting("METRICS_PORT", "server.metrics_port", v.port, "their port; 0: a free one, printed", "9464"),
    Setting(
        "DEFAULT_WORKSPACE",
        "topics.default_workspace",
        v.workspace,
        "workspace of events that name none; without it they are dead letters",
        local_default="default",
    ),
    Setting(
        "EVENT_SCHEMAS_DIR",
        "catalogue.schemas_dir",
        v.folder,
        "folder of the event catalogue: one <type>.json for each type",
        default_shown="the shipped catalogue",
    ),
    Setting(
        "SCHEMA_POLICY",
        "catalogue.policy",
        v.choice("deliver", "dead-letter"),
        "what becomes of an event of an unknown type, or one that its schema rejects: deliver or dead-letter",
        "deliver",
    ),
    Setting(
        "DELIVERY_RETENTION_DAYS",
        "mongo.delivery_retention_days",
        _DAYS,
        "days that the delivery log keeps deliveries",
        "30",
    ),
    Setting("LOCAL_DIR", "local_dir", v.path, "folder of the local Kafka and MongoDB", ".local"),
    Setting(
        "LOG_FORMAT",
        "log.format",
        v.choice("console", "json"),
        "form of the process's own log: console or json",
        default_shown="console on a terminal, else json",
    ),
    Setting(
        "LOG_LEVEL",
        "log.level",
        v.choice("debug", "info", "warning", "error"),
        "lowest level of the process's own log: debug, info, warning or error",
        "info",
    ),
    Setting(
        "TRACING",
        "tracing",
        v.boolean,
        "whether workers send spans to OpenTelemetry, as its OTEL_ variables say; needs the extra otel",
        "false",
    ),
)


@cache
def by_full_name() -> Mapping[str, Setting]:
    """Return the settings by environment variable."""
    return {setting.full_name: setting for setting in SETTINGS}


def describe() -> Sequence[tuple[str, str, str]]:
    """Return environment variable, default and meaning of every setting, in the order to show them."""
    return [(setting.full_name, setting.default_text(), setting.meaning) for setting in SETTINGS]
