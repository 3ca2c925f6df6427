"""The sealed values of the webhooks, apart from all else that a webhook is."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from dispatcher.core.sealing import SealPurpose
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.webhook_documents import SUBSCRIPTION_FIELDS
from dispatcher.ports import SealedWebhook

_BATCH = 500
_SEALED_FIELDS = {
    name: purpose for purpose in SealPurpose if (name := purpose.value.replace("-", "_")) in SUBSCRIPTION_FIELDS
}
"""Fields that hold one sealed value or null, each called as its purpose is; the list of secrets stands beside them."""
_FIELDS: Document = dict.fromkeys(("workspace_id", "revision", "secrets", *_SEALED_FIELDS), 1)


class MongoSealedWebhooks:
    """Reads and replaces sealed values; implements `dispatcher.ports.SealedStore`.

    Args:
        webhooks: The collection; majority reads and writes.
    """

    def __init__(self, webhooks: Collection) -> None:
        self._webhooks = webhooks

    async def batches(self) -> AsyncGenerator[Sequence[SealedWebhook], None]:
        """Go through all webhooks by id, 500 at a time.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        query: Document = {}
        while True:
            with unavailable_errors():
                found = self._webhooks.find(query, _FIELDS).sort("_id", 1).limit(_BATCH)
                rows = await found.to_list(length=None)
            if not rows:
                return
            yield [_sealed_webhook(row) for row in rows]
            query = {"_id": {"$gt": rows[-1]["_id"]}}

    async def get(self, webhook_id: str) -> SealedWebhook | None:
        """Return one as it is now, or None where it is gone.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            stored = await self._webhooks.find_one({"_id": webhook_id}, _FIELDS)
        return None if stored is None else _sealed_webhook(stored)

    async def reseal(self, webhook: SealedWebhook, values: Mapping[str, bytes]) -> bool:
        """Put sealed values in their places, if the webhook's revision is still the one that was read.

        Raises:
            UnavailableError: MongoDB is out of reach; they may or may not have been stored.
        """
        where = {"_id": webhook.id, "workspace_id": webhook.workspace_id, "revision": webhook.revision}
        with unavailable_errors():
            result = await self._webhooks.update_one(where, {"$set": dict(values), "$inc": {"revision": 1}})
        return bool(result.matched_count)


def _sealed_webhook(stored: Document) -> SealedWebhook:
    try:
        values = {
            f"secrets.{number}.sealed": (SealPurpose.SIGNING_SECRET, bytes(secret["sealed"]))
            for number, secret in enumerate(stored["secrets"])
        }
        for name, purpose in _SEALED_FIELDS.items():
            if stored.get(name) is not None:
                values[name] = (purpose, bytes(stored[name]))
        return SealedWebhook(stored["_id"], str(stored["workspace_id"]), int(stored["revision"]), values)
    except (KeyError, TypeError, ValueError):
        return SealedWebhook(str(stored["_id"]), str(stored.get("workspace_id")), 0, None)
