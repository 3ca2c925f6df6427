"""Client settings, and what errors mean."""

import asyncio
import ssl

import pytest
import trustme
from aiokafka import errors

from dispatcher.core.errors import MisconfiguredError, UnavailableError
from dispatcher.kafka.client import ErrorKind, as_dispatcher_error, bounded, client_arguments, kind_of
from dispatcher.settings import KafkaSettings


@pytest.mark.parametrize(
    "error",
    [
        errors.KafkaConnectionError(),
        errors.RequestTimedOutError(),
        errors.NotEnoughReplicasError(),
        errors.NotEnoughReplicasAfterAppendError(),
        errors.KafkaTimeoutError(),
        errors.LeaderNotAvailableError(),
        errors.UnknownError(),
        errors.CorruptRecordException(),
        errors.InvalidTimestampError(),
        OSError(),
        TimeoutError(),
    ],
    ids=repr,
)
def test_what_may_pass_is_waited_out(error):
    """Trouble of the cluster, and errors that aiokafka has no name for, drop nothing."""
    assert kind_of(error) is ErrorKind.RETRIABLE
    assert isinstance(as_dispatcher_error(error, "testing"), UnavailableError)


@pytest.mark.parametrize(
    "error",
    [errors.MessageSizeTooLargeError(), errors.RecordListTooLargeError(), TypeError()],
    ids=repr,
)
def test_what_a_record_is_at_fault_for_is_its_own(error):
    """Errors of one record concern no other."""
    assert kind_of(error) is ErrorKind.RECORD


@pytest.mark.parametrize(
    "error",
    [
        errors.TopicAuthorizationFailedError(),
        errors.GroupAuthorizationFailedError(),
        errors.ClusterAuthorizationFailedError(),
        errors.SaslAuthenticationFailed(),
        errors.InvalidTopicError(),
    ],
    ids=repr,
)
def test_what_somebody_must_mend_is_a_misconfiguration(error):
    """Refused rights and names never pass by waiting."""
    assert kind_of(error) is ErrorKind.MISCONFIGURED
    assert isinstance(as_dispatcher_error(error, "testing"), MisconfiguredError)


def test_every_error_code_has_a_kind():
    """Whatever a broker answers, there is a way on."""
    for error in errors.kafka_errors.values():
        assert isinstance(kind_of(error()), ErrorKind)


def test_an_unknown_topic_settles_with_time():
    """A topic that was just made may be unknown for a while; after the grace it counts as missing."""
    error = errors.UnknownTopicOrPartitionError()
    assert kind_of(error) is ErrorKind.RETRIABLE
    assert kind_of(error, waited_seconds=29) is ErrorKind.RETRIABLE
    assert kind_of(error, waited_seconds=30) is ErrorKind.MISCONFIGURED
    assert kind_of(error, waited_seconds=2, grace_seconds=1) is ErrorKind.MISCONFIGURED


def test_plain_settings_carry_no_credentials():
    """Without SASL and TLS, neither is mentioned."""
    arguments = client_arguments(KafkaSettings("a:1,b:2", sasl_username="u", sasl_password="p"))
    assert arguments["bootstrap_servers"] == "a:1,b:2"
    assert not {"ssl_context", "sasl_plain_password"} & arguments.keys()


def test_secure_settings_verify_and_log_in(tmp_path):
    """SASL_SSL carries the credentials and a context that verifies certificate and name."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    arguments = client_arguments(
        KafkaSettings(
            "a:1",
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="u",
            sasl_password="p",
            ssl_cafile=tmp_path / "ca.pem",
        )
    )
    assert (arguments["sasl_mechanism"], arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == (
        "SCRAM-SHA-512", "u", "p"
    )  # fmt: skip
    assert arguments["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert arguments["ssl_context"].check_hostname


def test_missing_certificate_files_are_named(tmp_path):
    """A wrong path is the operator's to mend, and the message says which kind of thing it is."""
    with pytest.raises(MisconfiguredError, match="certificate files"):
        client_arguments(KafkaSettings("a:1", security_protocol="SSL", ssl_cafile=tmp_path / "none.pem"))


async def test_a_closing_step_that_hangs_or_fails_ends():
    """Closing never takes longer than it may, and never raises."""

    async def fail():
        raise ZeroDivisionError

    assert await bounded(fail(), 5, "failing")
    assert not await bounded(asyncio.Event().wait(), 0.01, "hanging")
