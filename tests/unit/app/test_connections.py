"""Connections built from the settings."""

import pytest

from dispatcher.app.connections import kafka_producer, mongo_connection
from dispatcher.core.errors import SettingsError, UnavailableError
from dispatcher.settings import KafkaSettings, MongoSettings, Settings


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
