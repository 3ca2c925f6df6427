"""Connections built from the settings."""

import dataclasses
from ipaddress import ip_network

import pytest

from dispatcher.app.connections import address_policy_of, kafka_producer, mongo_connection
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import SettingsError, UnavailableError
from dispatcher.settings import KafkaSettings, MongoSettings, SendSettings, Settings


@pytest.mark.parametrize("uri", ["mongodb://u:hush@host:99999/", "mongodb://u:hu:sh@host", "mongodb://h/?w=2&w=hush&x"])
async def test_an_address_that_the_driver_refuses_is_a_wrong_setting_and_not_repeated(uri):
    """The driver's complaint is no traceback, and the password is in no message."""
    with pytest.raises(SettingsError, match="DISPATCHER_MONGO_URI") as caught:
        async with mongo_connection(Settings(KafkaSettings(""), MongoSettings(uri), ())):
            pass
    assert "hu" not in str(caught.value)


async def test_a_kafka_that_is_out_of_reach_is_said():
    """Nothing listens there, and the error is one of ours."""
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        async with kafka_producer(Settings(KafkaSettings("127.0.0.1:1"), MongoSettings(""), ())):
            pass


def test_every_rule_of_the_operator_reaches_the_guard():
    """Each field of the guard's rules has its setting, so that none is left at its default by oversight."""
    rules = {
        "allow_http": True,
        "allowed_networks": (ip_network("10.0.0.0/8"),),
        "allowed_ports": frozenset({25}),
        "forbidden_networks": (ip_network("9.9.9.0/24"),),
    }
    assert set(rules) == {field.name for field in dataclasses.fields(AddressPolicy)}
    settings = Settings(KafkaSettings(""), MongoSettings(""), (), send=SendSettings(**rules))
    assert address_policy_of(settings) == AddressPolicy(**rules)
