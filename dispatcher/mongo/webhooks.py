"""Webhooks in MongoDB: what the API changes, and what a worker looks up where its index doesn't know."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from dispatcher.core.errors import ConflictError
from dispatcher.core.model import Status, Subscription, Webhook
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.cursors import after, encode_cursor
from dispatcher.mongo.quotas import insert_within
from dispatcher.mongo.webhook_documents import BrokenWebhookError, document_of, subscription_of, webhook_of
from dispatcher.ports import Page, WebhookFilter

T = TypeVar("T")

_NEWEST_FIRST = [("created_at", -1), ("_id", -1)]

_log = structlog.get_logger(__name__)


class MongoWebhooks:
    """Keeps the webhooks; implements `dispatcher.ports.WebhookStore` and `SubscriptionLookup`.

    A stored webhook that can't be read counts as absent wherever it is met, and is logged with its id.

    Args:
        webhooks: The collection; majority reads and writes.
    """

    def __init__(self, webhooks: Collection) -> None:
        self._webhooks = webhooks

    async def insert(self, webhook: Webhook, *, at_most: int | None = None) -> bool:
        """Store a new webhook; False where its workspace has `at_most` already.

        Raises:
            ConflictError: One with this id is there already.
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            try:
                return await insert_within(self._webhooks, document_of(webhook), at_most)
            except DuplicateKeyError:
                raise ConflictError(f"a webhook {webhook.subscription.id} exists already; read it again") from None

    async def get(self, workspace_id: str, webhook_id: str) -> Webhook | None:
        """Return a webhook of this workspace, or None.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            stored = await self._webhooks.find_one({"_id": webhook_id, "workspace_id": workspace_id})
        return None if stored is None else _readable(stored, webhook_of)

    async def some(self, workspace_id: str, webhook_ids: Sequence[str]) -> Sequence[Webhook]:
        """Return those of these webhooks that are this workspace's, in any order.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        if not webhook_ids:
            return []
        query = {"_id": {"$in": list(webhook_ids)}, "workspace_id": workspace_id}
        with unavailable_errors():
            stored = await self._webhooks.find(query).to_list(length=None)
        return [row for row in (_readable(row, webhook_of) for row in stored) if row is not None]

    async def ids(self, workspace_id: str, limit: int) -> Sequence[str]:
        """Return the ids of at most `limit` of a workspace's webhooks, newest first, from the index alone.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            found = self._webhooks.find({"workspace_id": workspace_id}, {"_id": 1}).sort(_NEWEST_FIRST).limit(limit)
            return [row["_id"] for row in await found.to_list(length=None)]

    async def page(
        self, workspace_id: str, cursor: str | None, limit: int, *, wanted: WebhookFilter | None = None
    ) -> Page[Webhook]:
        """Return one page of a workspace's webhooks, newest first; stays right while webhooks are added.

        A filter looks at each webhook of the workspace, in the order of the index, until the page is full.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: MongoDB is out of reach.
        """
        query: Document = {"workspace_id": workspace_id} | _conditions(wanted or WebhookFilter())
        if cursor is not None:
            query |= after(cursor, time_field="created_at")
        with unavailable_errors():
            found = self._webhooks.find(query).sort(_NEWEST_FIRST).limit(limit + 1)
            stored = await found.to_list(length=None)
        last = stored[limit - 1] if len(stored) > limit else None
        rows = [row for row in (_readable(row, webhook_of) for row in stored[:limit]) if row is not None]
        return Page(rows, None if last is None else encode_cursor(int(last["created_at"]), last["_id"]))

    async def replace(self, webhook: Webhook, *, expected_revision: int) -> bool:
        """Store a changed webhook, if its stored revision is still the expected one.

        Returns:
            False where it isn't, or where the webhook is gone.

        Raises:
            UnavailableError: MongoDB is out of reach; it may or may not have been stored.
        """
        document = document_of(webhook)
        where = {
            "_id": document.pop("_id"),
            "workspace_id": document.pop("workspace_id"),
            "revision": expected_revision,
        }
        with unavailable_errors():
            result = await self._webhooks.update_one(where, {"$set": document})
        return bool(result.matched_count)

    async def delete(self, workspace_id: str, webhook_id: str, *, expected_revision: int | None = None) -> bool:
        """Delete a webhook; False where there is none, or where its revision is not the expected one.

        Raises:
            UnavailableError: MongoDB is out of reach; it may or may not have been deleted.
        """
        where: Document = {"_id": webhook_id, "workspace_id": workspace_id}
        if expected_revision is not None:
            where["revision"] = expected_revision
        with unavailable_errors():
            result = await self._webhooks.delete_one(where)
        return bool(result.deleted_count)

    async def find(self, subscription_id: str) -> Subscription | None:
        """Return a subscription whatever its status (primary, majority), or None where it is deleted.

        One that is stored and can't be read (broken, or written by a later version) comes without a URL: its
        deliveries fail and climb their ladder, where calling it deleted would lose them.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        with unavailable_errors():
            stored = await self._webhooks.find_one({"_id": subscription_id})
        if stored is None:
            return None
        return _readable(stored, subscription_of) or _unreadable(subscription_id, stored)

    async def disable(self, subscription: Subscription, reason: str, now_ms: int) -> bool:
        """Set status `disabled` with a reason, if URL and status are still those of `subscription`.

        A webhook whose owner has changed them meanwhile, were it to and fro, is left alone.

        Returns:
            False where they aren't, where it is disabled already, or where it is gone.

        Raises:
            UnavailableError: MongoDB is out of reach; it may or may not have been disabled.
        """
        if subscription.status == Status.DISABLED:
            return False
        with unavailable_errors():
            stored = await self._webhooks.find_one({"_id": subscription.id})
            known = None if stored is None else _readable(stored, subscription_of)
            if stored is None or known is None or known.url != subscription.url:
                return False
            if known.endpoint_revision != subscription.endpoint_revision:
                return False
            # The URL as text: the stored one was just seen to mean the one that was sent to.
            where = {
                "_id": subscription.id,
                "url": stored["url"],
                "status": str(subscription.status),
                "endpoint_revision": stored.get("endpoint_revision"),
            }
            changed = {
                "status": Status.DISABLED.value,
                "disabled_reason": reason,
                "disabled_at": DatetimeMS(now_ms),
                "updated_at": DatetimeMS(now_ms),
            }
            result = await self._webhooks.update_one(where, {"$set": changed, "$inc": {"revision": 1}})
        return bool(result.matched_count)


def _conditions(wanted: WebhookFilter) -> Document:
    conditions: Document = {}
    if wanted.status is not None:
        conditions["status"] = wanted.status
    if wanted.text is not None:
        part = {"$regex": re.escape(wanted.text), "$options": "i"}
        conditions["$or"] = [{"name": part}, {"url": part}, {"_id": wanted.text}]
    return conditions


def _unreadable(subscription_id: str, stored: Document) -> Subscription:
    return Subscription(subscription_id, str(stored.get("workspace_id")), None, (), ())


def _readable(stored: Document, read: Callable[[Document], T]) -> T | None:
    try:
        return read(stored)
    except BrokenWebhookError as error:
        _log.error("stored webhook can't be read", problem=str(error))
        return None
