"""Which fields of a stored webhook are sealed."""

from dataclasses import fields

from dispatcher.core.model import SealedSecret, Subscription
from dispatcher.mongo.sealed_webhooks import _FIELDS, _sealed_webhook
from dispatcher.mongo.webhook_documents import document_of
from tests.unit.mongo.samples import webhook

SEALED = {field.name for field in fields(Subscription) if "bytes" in str(field.type)}


def test_no_sealed_field_is_forgotten():
    """Whatever bytes a webhook is stored with, a rotation of keys finds; nothing but the secrets holds more of them."""
    secrets = (SealedSecret(b"one"), SealedSecret(b"two", 5))
    document = document_of(webhook(secrets=secrets, **dict.fromkeys(SEALED, b"sealed")))
    held = {name for name, value in document.items() if isinstance(value, bytes)}
    assert held == SEALED, "a field of bytes is not stored under its own name"
    read = _sealed_webhook({name: document[name] for name in ("_id", *_FIELDS)})
    assert set(read.values) == {*held, "secrets.0.sealed", "secrets.1.sealed"}
    assert [sealed for place, (_, sealed) in read.values.items() if place.startswith("secrets")] == [b"one", b"two"]


def test_a_webhook_without_a_key():
    """Fields that are null hold no value to seal."""
    read = _sealed_webhook(document_of(webhook(**dict.fromkeys(SEALED))))
    assert {place.split(".")[0] for place in read.values} == {"secrets"}
