"""The text of each setting: good ones, and what is said of bad ones."""

import base64
import datetime as dt

import pytest

from dispatcher.config.table import SETTINGS, describe
from dispatcher.core.retry import DEFAULT_TIERS

BY_NAME = {setting.name: setting for setting in SETTINGS}
KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 255)]
URLSAFE = base64.urlsafe_b64encode(bytes([255]) * 32).decode()

GOOD = [
    ("KAFKA_BOOTSTRAP_SERVERS", "a:1, b.c:9092,[::1]:9093", "a:1,b.c:9092,[::1]:9093"),
    ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl", "SASL_SSL"),
    ("KAFKA_SASL_MECHANISM", "scram-sha-512", "SCRAM-SHA-512"),
    ("KAFKA_SASL_USERNAME", "me", "me"),
    ("KAFKA_SASL_PASSWORD", "pässword", "pässword"),
    ("KAFKA_SESSION_TIMEOUT_MS", "6000", 6000),
    ("KAFKA_HEARTBEAT_INTERVAL_MS", "500", 500),
    ("KAFKA_REBALANCE_TIMEOUT_MS", "6000", 6000),
    ("KAFKA_MAX_POLL_INTERVAL_MS", "60000", 60000),
    ("MONGO_URI", "mongodb+srv://u:p%40@cluster.example.com/?w=majority", None),
    ("MONGO_DATABASE", "webhooks-2", "webhooks-2"),
    ("SOURCE_TOPICS", "a, b", ("a", "b")),
    ("SOURCE_TOPICS", "^a|b$", "^a|b$"),
    ("START_FROM", "Earliest", "earliest"),
    ("START_FROM", "2026-01-15T11:30:00+01:00", dt.datetime(2026, 1, 15, 10, 30, tzinfo=dt.UTC)),
    ("CONSUMER_GROUP", "acme hooks", "acme hooks"),
    ("TOPIC_PREFIX", "acme.webhooks", "acme.webhooks"),
    ("RETRY_TIERS", "60s,300000ms,30m,1h,6h", DEFAULT_TIERS),
    ("TOPIC_PARTITIONS", "1", 1),
    ("TOPIC_REPLICATION", "3", 3),
    ("TOPIC_RETENTION_DAYS", "14", 14),
    ("DEAD_LETTER_RETENTION_DAYS", "90", 90),
    ("MAX_EVENT_BYTES", "2097152", 2_097_152),
    ("ALLOW_HTTP", "YES", True),
    ("ALLOWED_PORTS", "25,26", frozenset({25, 26})),
    ("EGRESS_PROXY", "http://u:p@proxy:3128", None),
    ("CA_BUNDLE", __file__, None),
    ("USER_AGENT", "Acme/2.0", "Acme/2.0"),
    ("ENCRYPTION_KEYS", f"{KEYS[0]},{KEYS[1]}", (bytes([1]) * 32, bytes([255]) * 32)),
    ("ENCRYPTION_KEYS", URLSAFE, (bytes([255]) * 32,)),
    ("MAX_IN_FLIGHT", "10", 10),
    ("MAX_IN_FLIGHT_PER_WEBHOOK", "10", 10),
    ("CIRCUIT_WAIT", "30m", 1_800_000),
    ("AUTO_DISABLE_DAYS", "30", 30),
    ("OUTCOMES_TOPIC", "on", True),
    ("API_HOST", "::", "::"),
    ("API_PORT", "0", 0),
    ("MAX_WEBHOOKS_PER_WORKSPACE", "50", 50),
    ("MAX_API_KEYS_PER_WORKSPACE", "5", 5),
    ("API_REQUESTS_PER_SECOND", "1000", 1000),
    ("TEST_EVENTS_PER_MINUTE", "6", 6),
    ("METRICS_HOST", "0.0.0.0", "0.0.0.0"),
    ("METRICS_PORT", "65535", 65535),
    ("DEFAULT_WORKSPACE", "acme", "acme"),
    ("SCHEMA_POLICY", "dead-letter", "dead-letter"),
    ("DELIVERY_RETENTION_DAYS", "1", 1),
    ("LOG_FORMAT", "JSON", "json"),
    ("LOG_LEVEL", "debug", "debug"),
    ("TRACING", "true", True),
]

BAD = [
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka", "host:port"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka:0", "host:port"),
    ("KAFKA_BOOTSTRAP_SERVERS", ",", "host:port"),
    ("KAFKA_SECURITY_PROTOCOL", "TLS", "SASL_SSL"),
    ("KAFKA_SASL_MECHANISM", "GSSAPI", "SCRAM-SHA-256"),
    ("KAFKA_SASL_USERNAME", "a\nb", "printable"),
    ("KAFKA_SSL_CAFILE", "/nowhere/ca.pem", "no file"),
    ("KAFKA_SSL_CERTFILE", "x" * 5000, "no file"),
    ("KAFKA_SSL_KEYFILE", "\0", "no file"),
    ("KAFKA_SESSION_TIMEOUT_MS", "30s", "whole number"),
    ("KAFKA_HEARTBEAT_INTERVAL_MS", "1", "from 100"),
    ("KAFKA_REBALANCE_TIMEOUT_MS", "-5", "from 100"),
    ("KAFKA_MAX_POLL_INTERVAL_MS", "1e6", "whole number"),
    ("MONGO_URI", "localhost:27017", "mongodb://"),
    ("MONGO_URI", "mongodb://", "mongodb://"),
    ("MONGO_DATABASE", "a.b", "63 characters"),
    ("SOURCE_TOPICS", "a b", "topic name"),
    ("SOURCE_TOPICS", "..", "topic name"),
    ("SOURCE_TOPICS", "a,a", "twice"),
    ("SOURCE_TOPICS", "^(", "regular expression"),
    ("SOURCE_TOPICS", "^(?\n)", "regular expression"),
    ("SOURCE_TOPICS", ",", "names no topic"),
    ("START_FROM", "yesterday", "earliest"),
    ("START_FROM", "2026-01-15T10:30:00", "2026-01-15T10:30:00Z"),
    ("CONSUMER_GROUP", "x" * 201, "at most 200"),
    ("TOPIC_PREFIX", "a/b", "topic name"),
    ("TOPIC_PREFIX", "x" * 220, "at most 200"),
    ("RETRY_TIERS", "5", "such as 5m"),
    ("RETRY_TIERS", "1m,60s", "every delay once"),
    ("RETRY_TIERS", "5m,1m", "shortest first"),
    ("RETRY_TIERS", "1m,999999999d", "at most 365d"),
    ("RETRY_TIERS", ",", "1m,5m"),
    ("TOPIC_PARTITIONS", "0", "from 1"),
    ("TOPIC_REPLICATION", "-2", "from -1"),
    ("TOPIC_RETENTION_DAYS", "0", "from 1"),
    ("DEAD_LETTER_RETENTION_DAYS", "", "from 1"),
    ("MAX_EVENT_BYTES", "1MB", "whole number"),
    ("ALLOW_HTTP", "maybe", "true or false"),
    ("ALLOWED_NETWORKS", "10.0.0.1/8", "write 10.0.0.0/8"),
    ("ALLOWED_NETWORKS", "intranet", "10.0.0.0/8"),
    ("FORBIDDEN_NETWORKS", "9.9.9.9/24", "write 9.9.9.0/24"),
    ("ALLOWED_PORTS", "0", "from 1"),
    ("ALLOWED_PORTS", "8000-9000", "from 1"),
    ("EGRESS_PROXY", "proxy:3128", "http://host:port"),
    ("EGRESS_PROXY", "http://[::1", "http://host:port"),
    ("EGRESS_PROXY", "http://proxy:3128/path", "http://host:port"),
    ("CA_BUNDLE", "/nowhere", "no file"),
    ("USER_AGENT", "Käse", "ASCII"),
    ("ENCRYPTION_KEYS", "c2hvcnQ=", "number 1"),
    ("ENCRYPTION_KEYS", f"{KEYS[0]},!", "number 2"),
    ("ENCRYPTION_KEYS", ",", "openssl rand"),
    ("MAX_IN_FLIGHT", "0", "from 1"),
    ("MAX_IN_FLIGHT_PER_WEBHOOK", "0", "from 1"),
    ("CIRCUIT_WAIT", "long", "no delay"),
    ("AUTO_DISABLE_DAYS", "never", "whole number"),
    ("OUTCOMES_TOPIC", "outcomes", "true or false"),
    ("API_HOST", "a b", "host name"),
    ("API_PORT", "65536", "65535"),
    ("API_PORT", "tcp://10.0.0.1:80", "enableServiceLinks"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "write 10.0.0.0/8"),
    ("MAX_WEBHOOKS_PER_WORKSPACE", "0", "from 1"),
    ("MAX_API_KEYS_PER_WORKSPACE", "many", "whole number"),
    ("API_REQUESTS_PER_SECOND", "0.5", "whole number"),
    ("TEST_EVENTS_PER_MINUTE", "-1", "from 1"),
    ("METRICS_HOST", "http://x/", "host name"),
    ("METRICS_PORT", "-1", "65535"),
    ("DEFAULT_WORKSPACE", "a b", "64 letters"),
    ("EVENT_SCHEMAS_DIR", "/nowhere", "no folder"),
    ("SCHEMA_POLICY", "drop", "dead-letter"),
    ("DELIVERY_RETENTION_DAYS", "30d", "whole number"),
    ("LOCAL_DIR", "a\0b", "control character"),
    ("LOG_FORMAT", "xml", "console"),
    ("LOG_LEVEL", "trace", "warning"),
    ("TRACING", "otlp", "true or false"),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_text_becomes_its_value(name, text, value):
    """Each setting accepts what its meaning promises, and brings it into one form."""
    read = BY_NAME[name].read(text)
    assert str(read) == text if value is None else read == value


@pytest.mark.parametrize(("name", "text", "hint"), BAD)
def test_a_bad_text_is_refused_with_what_to_write(name, text, hint):
    """Each setting refuses what it can't use, and its message has the form that it wants."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        BY_NAME[name].read(text)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_networks_of_both_families_are_read(tmp_path):
    """The catalogue's folder must exist; networks may be IPv4 and IPv6."""
    assert BY_NAME["EVENT_SCHEMAS_DIR"].read(str(tmp_path)) == tmp_path
    found = BY_NAME["ALLOWED_NETWORKS"].read("10.0.0.0/8, fd00::/8")
    assert [str(network) for network in found] == ["10.0.0.0/8", "fd00::/8"]


def test_every_setting_is_tried_and_described():
    """No setting is without a bad example here, a meaning and a default to show."""
    assert {name for name, _, _ in BAD} | {"KAFKA_SASL_PASSWORD"} == set(BY_NAME)
    assert len({setting.place for setting in SETTINGS}) == len(SETTINGS)
    for name, default, meaning in describe():
        assert name.startswith("DISPATCHER_")
        assert default
        assert meaning
