"""Settings from the environment, put together."""

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher import config
from dispatcher.config import LocalAddresses, Need, effective, load
from dispatcher.config.table import SETTINGS
from dispatcher.core.errors import SettingsError
from dispatcher.settings import (
    CatalogueSettings,
    KafkaSettings,
    MongoSettings,
    SendSettings,
    ServerSettings,
    Settings,
    TopicSettings,
)

KEY = base64.b64encode(bytes(32)).decode()
COMPLETE = {
    "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "DISPATCHER_MONGO_URI": "mongodb://mongo/?replicaSet=rs",
    "DISPATCHER_ENCRYPTION_KEYS": KEY,
}
LOCAL = LocalAddresses("127.0.0.1:19092", "mongodb://127.0.0.1:27099/", KEY)


def problems(environ, **options):
    with pytest.raises(SettingsError) as caught:
        load(environ, **options)
    return caught.value.problems


def test_defaults_are_those_of_the_types():
    """What is not set has the default that the settings types name, so that tests and production agree."""
    assert load(COMPLETE) == Settings(
        kafka=KafkaSettings("kafka:9092"),
        mongo=MongoSettings("mongodb://mongo/?replicaSet=rs"),
        encryption_keys=(bytes(32),),
        topics=TopicSettings(),
        send=SendSettings(),
        server=ServerSettings(),
        catalogue=CatalogueSettings(),
        local_dir=Path(".local"),
    )


def test_an_empty_variable_is_not_set():
    """Compose files leave variables empty, which means the default."""
    assert load({**COMPLETE, "DISPATCHER_API_PORT": " ", "DISPATCHER_CA_BUNDLE": ""}) == load(COMPLETE)


def test_all_problems_are_said_at_once_each_on_a_line_with_its_name():
    """Whoever sets many settings wrong learns of all of them from one start."""
    wrong = {
        "DISPATCHER_API_PORT": "eighty",
        "DISPATCHER_RETRY_TIERS": "5m,1m",
        "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": "kafka",
        "DISPATCHER_LOG_LEVL": "info",
        "DISPATCHER_MONGO_URI": "mongodb://mongo",
    }
    found = problems(wrong)
    named = {line.split()[0] for line in found}
    assert named == {*wrong, "DISPATCHER_ENCRYPTION_KEYS"} - {"DISPATCHER_MONGO_URI"}
    assert all("\n" not in line for line in found)


def test_an_unknown_name_is_refused_with_the_name_that_was_meant():
    """A misspelt setting doesn't silently mean its default."""
    (line,) = problems({**COMPLETE, "DISPATCHER_RETRY_TIER": "1m"})
    assert line == "DISPATCHER_RETRY_TIER is no setting; did you mean DISPATCHER_RETRY_TIERS?"
    (line,) = problems({**COMPLETE, "DISPATCHER_QQQQQQQQQ": "1"})
    assert line.endswith("see: dispatcher settings --help")


def test_names_of_others_and_of_tests_mean_nothing():
    """Variables of other programs and of the test suite may stand in the same environment."""
    assert load({**COMPLETE, "DISPATCHER_TEST_KAFKA": "x", "HOME": "/root", "dispatcher_api_port": "x"}) == load(
        COMPLETE
    )


@pytest.mark.parametrize("name", ["DISPATCHER_SERVICE_HOST", "DISPATCHER_PORT", "DISPATCHER_PORT_8080_TCP_ADDR"])
def test_variables_that_kubernetes_makes_are_explained(name):
    """A Kubernetes service called dispatcher injects such names, and the message says how to stop that."""
    (line,) = problems({**COMPLETE, name: "10.0.0.1"})
    assert "enableServiceLinks: false" in line


def test_without_addresses_one_sentence_says_that_no_local_stack_runs():
    """The first command on a fresh machine is told what to do."""
    (line,) = problems({})
    assert line == (
        "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS and DISPATCHER_MONGO_URI are not set and no local stack runs in .local: "
        "set them, or start a local one with: dispatcher run --local"
    )


def test_a_command_misses_only_what_it_needs():
    """Topics need no MongoDB, keys of the API need no Kafka, and the settings page needs neither."""
    assert load({"DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}, needs=(Need.KAFKA,)).mongo.uri == ""
    assert load({"DISPATCHER_MONGO_URI": "mongodb://m"}, needs=(Need.MONGO,)).kafka.bootstrap_servers == ""
    assert load({}, needs=()).encryption_keys == ()
    assert len(problems({}, needs=(Need.KAFKA,))) == 1


def test_the_local_stack_gives_addresses_key_and_defaults():
    """A command beside `run --local` finds everything without a setting."""
    found = load({}, local=LOCAL)
    assert found.kafka.bootstrap_servers == "127.0.0.1:19092"
    assert found.mongo.uri == "mongodb://127.0.0.1:27099/"
    assert found.encryption_keys == (bytes(32),)
    assert found.send.allow_http
    assert [str(n) for n in found.send.allowed_networks] == ["127.0.0.0/8", "::1/128"]
    assert found.topics.default_workspace == "default"
    assert found.topics.start_from == "earliest"


def test_configured_addresses_win_over_the_local_stack():
    """With both addresses configured, a local stack that happens to run changes nothing."""
    assert load(COMPLETE, local=LOCAL) == load(COMPLETE)


def test_kafka_and_mongodb_are_resolved_each_by_itself():
    """One may be configured and the other local."""
    found = load({"DISPATCHER_MONGO_URI": "mongodb://mongo"}, local=LOCAL)
    assert (found.kafka.bootstrap_servers, found.mongo.uri) == ("127.0.0.1:19092", "mongodb://mongo")
    (line,) = problems({"DISPATCHER_ENCRYPTION_KEYS": KEY}, local=LocalAddresses(kafka_bootstrap="127.0.0.1:1"))
    assert line == (
        "DISPATCHER_MONGO_URI is not set and no local MongoDB runs in .local: set it, or start a local one with: "
        "dispatcher run --local"
    )


def test_a_setting_wins_over_its_local_default():
    """Local defaults are defaults, not rules."""
    found = load({"DISPATCHER_ALLOW_HTTP": "false", "DISPATCHER_START_FROM": "latest"}, local=LOCAL)
    assert not found.send.allow_http
    assert found.topics.start_from == "latest"


def test_run_local_has_local_defaults_even_with_configured_addresses():
    """`--local` on the command line is a wish of its own."""
    assert load(COMPLETE, run_local=True).send.allow_http
    assert not load(COMPLETE).send.allow_http


def test_the_log_is_for_people_on_a_terminal_and_json_elsewhere():
    """The default form of the log follows where it goes; a setting wins."""
    assert load(COMPLETE, terminal=True).log.format == "console"
    assert load(COMPLETE).log.format == "json"
    assert load({**COMPLETE, "DISPATCHER_LOG_FORMAT": "json"}, terminal=True).log.format == "json"


def test_requests_outlast_a_long_rebalance():
    """Kafka's answer to joining a group may take the rebalance time-out, so requests may take longer."""
    found = load({**COMPLETE, "DISPATCHER_KAFKA_REBALANCE_TIMEOUT_MS": "60000"})
    assert found.kafka.request_timeout_ms > 60_000
    assert load(COMPLETE).kafka.request_timeout_ms == 40_000


def test_a_pattern_of_source_topics_stands_apart_from_names():
    """A value that starts with ^ is a regular expression."""
    found = load({**COMPLETE, "DISPATCHER_SOURCE_TOPICS": "^events[.].*"})
    assert (found.topics.source_pattern, found.topics.source_topics) == ("^events[.].*", ())


@pytest.mark.parametrize(
    ("environ", "culprit"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_PASSWORD": "x"}, "KAFKA_SASL_USERNAME"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "x"}, "KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SASL_USERNAME": "x"}, "KAFKA_SASL_USERNAME"),
        ({"KAFKA_SSL_CAFILE": __file__}, "KAFKA_SSL_CAFILE"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTFILE": __file__}, "KAFKA_SSL_KEYFILE"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEYFILE": __file__}, "KAFKA_SSL_CERTFILE"),
        ({"KAFKA_HEARTBEAT_INTERVAL_MS": "30000"}, "KAFKA_HEARTBEAT_INTERVAL_MS"),
        ({"SOURCE_TOPICS": "events,webhooks.overflow"}, "SOURCE_TOPICS"),
        ({"TOPIC_REPLICATION": "0"}, "TOPIC_REPLICATION"),
        ({"METRICS_PORT": "8080"}, "METRICS_PORT"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ, culprit):
    """A setting that another one makes impossible or useless is named."""
    found = problems({**COMPLETE, **{f"DISPATCHER_{name}": value for name, value in environ.items()}})
    assert [line.split()[0] for line in found] == [f"DISPATCHER_{culprit}"]


def test_two_free_ports_do_not_contradict_each_other():
    """Port 0 twice means two different ports."""
    found = load({**COMPLETE, "DISPATCHER_API_PORT": "0", "DISPATCHER_METRICS_PORT": "0"})
    assert found.server.api_port == found.server.metrics_port == 0


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from([setting.full_name for setting in SETTINGS]),
            st.text(max_size=20).map(lambda text: f"DISPATCHER_{text}"),
        ),
        st.one_of(
            st.text(max_size=60),
            st.text(alphabet="0123456789.:,/[]@^-msh=", max_size=40),
            st.sampled_from(["http://[::1", "^(", "mongodb://x", "9999-12-31T23:59:59-23:59", "a:b@c:1", "0"]),
        ),
        max_size=8,
    )
)
def test_any_environment_gives_settings_or_a_settings_error(environ):
    """No text, however odd, makes reading the settings fail in another way; each problem is one line."""
    lines = ("DISPATCHER_",)
    try:
        load(environ)
    except SettingsError as error:
        lines = error.problems
    assert lines
    assert all(line.startswith("DISPATCHER_") and "\n" not in line for line in lines)


def test_secrets_are_in_no_message_and_in_no_listing():
    """What holds a password is neither repeated where it is wrong nor shown where it is right."""
    hush = "hush-hush"
    wrong = {"MONGO_URI": f"mongo://u:{hush}@x", "ENCRYPTION_KEYS": hush, "EGRESS_PROXY": f"socks://u:{hush}@x:1"}
    assert hush not in str(problems({f"DISPATCHER_{name}": value for name, value in wrong.items()}))
    right = {
        **COMPLETE,
        "DISPATCHER_MONGO_URI": f"mongodb://u:{hush}@mongo",
        "DISPATCHER_EGRESS_PROXY": f"http://u:{hush}@proxy:3128",
        "DISPATCHER_KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "DISPATCHER_KAFKA_SASL_USERNAME": "me",
        "DISPATCHER_KAFKA_SASL_PASSWORD": hush,
    }
    found = load(right)
    assert hush not in repr(found)
    shown = {row.name: row.value for row in effective(found, right)}
    assert hush not in str(shown)
    assert KEY not in str(shown)
    assert shown["DISPATCHER_KAFKA_SASL_PASSWORD"] == "(hidden)"


def test_the_listing_says_where_each_value_comes_from():
    """Environment, local stack and default are told apart, and values read as they would be written."""
    environ = {"DISPATCHER_RETRY_TIERS": "60s,2m", "DISPATCHER_ALLOWED_PORTS": "8443,25"}
    rows = {row.name: (row.value, row.origin) for row in effective(load(environ, local=LOCAL), environ)}
    assert rows["DISPATCHER_RETRY_TIERS"] == ("1m,2m", "environment")
    assert rows["DISPATCHER_ALLOWED_PORTS"] == ("25,8443", "environment")
    assert rows["DISPATCHER_START_FROM"] == ("earliest", "local stack")
    assert rows["DISPATCHER_ALLOWED_NETWORKS"] == ("127.0.0.0/8,::1/128", "local stack")
    assert rows["DISPATCHER_KAFKA_BOOTSTRAP_SERVERS"] == ("127.0.0.1:19092", "local stack")
    assert rows["DISPATCHER_API_PORT"] == ("8080", "default")


def test_the_local_folder_is_known_before_the_other_settings():
    """The folder is read though everything else is missing, and an address makes looking there needless."""
    assert config.local_dir({"DISPATCHER_LOCAL_DIR": "elsewhere"}) == Path("elsewhere")
    assert config.local_dir({}) == Path(".local")
    assert config.local_wanted({"DISPATCHER_MONGO_URI": "mongodb://m"})
    assert not config.local_wanted(COMPLETE)
