"""The rotation of encryption keys over the settings' MongoDB."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.core.sealing import Keyring
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.sealed_webhooks import MongoSealedWebhooks
from dispatcher.operations.audit import Audit
from dispatcher.operations.key_rotation import KeyRotation
from dispatcher.settings import Settings


@asynccontextmanager
async def key_rotation(settings: Settings) -> AsyncIterator[KeyRotation]:
    """Open the stored secrets; raises what `mongo_connection` raises."""
    async with mongo_connection(settings) as connection:
        audit = Audit(MongoAudit(connection.audit), SystemClock(), draw)
        keyring = Keyring(settings.encryption_keys)
        yield KeyRotation(MongoSealedWebhooks(connection.webhooks), keyring, draw, audit)
