# ruff: noqa: D102 - the ports say what each method promises
"""The stores in memory, with a switch that puts them out of reach."""

import base64
import binascii
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dispatcher.core.dead_letters import statuses
from dispatcher.core.delivery_log import FailedFilter, LoggedDelivery
from dispatcher.core.errors import InvalidInputError, UnavailableError
from dispatcher.core.model import Webhook
from dispatcher.ports import (
    ApiKey,
    AuditEntry,
    AuditFilter,
    Claim,
    ClaimedRequest,
    DeliveryFilter,
    FailedCount,
    FailedSummary,
    Handled,
    Page,
    WebhookFilter,
)

T = TypeVar("T")
Position = tuple[int, str]


class Outage:
    """Says whether the stores can be reached; `calls` counts the calls that were let through."""

    def __init__(self) -> None:
        self.down = False
        self.calls = 0

    def check(self) -> None:
        if self.down:
            raise UnavailableError("MongoDB is out of reach")
        self.calls += 1


class MemoryWebhookStore:
    """`WebhookStore` in memory. `before_replace` runs before each replace, to make races."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.webhooks: dict[str, Webhook] = {}
        self.before_replace: Callable[[], None] = lambda: None

    async def insert(self, webhook: Webhook, *, at_most: int | None = None) -> bool:
        self.outage.check()
        assert webhook.subscription.id not in self.webhooks
        workspaces = [each.subscription.workspace_id for each in self.webhooks.values()]
        if at_most is not None and workspaces.count(webhook.subscription.workspace_id) >= at_most:
            return False
        self.webhooks[webhook.subscription.id] = webhook
        return True

    async def get(self, workspace_id: str, webhook_id: str) -> Webhook | None:
        self.outage.check()
        webhook = self.webhooks.get(webhook_id)
        return webhook if webhook and webhook.subscription.workspace_id == workspace_id else None

    async def some(self, workspace_id: str, webhook_ids: Sequence[str]) -> Sequence[Webhook]:
        found = [await self.get(workspace_id, webhook_id) for webhook_id in webhook_ids]
        return [webhook for webhook in found if webhook is not None]

    async def ids(self, workspace_id: str, limit: int) -> Sequence[str]:
        page = await self.page(workspace_id, None, limit)
        return [webhook.subscription.id for webhook in page.rows]

    async def page(
        self, workspace_id: str, cursor: str | None, limit: int, *, wanted: WebhookFilter | None = None
    ) -> Page[Webhook]:
        self.outage.check()
        wanted = wanted or WebhookFilter()
        rows = [
            webhook
            for webhook in self.webhooks.values()
            if webhook.subscription.workspace_id == workspace_id
            and wanted.status in (None, webhook.subscription.status)
            and _has_text(webhook, wanted.text)
        ]
        return paged(rows, lambda webhook: (webhook.created_at_ms, webhook.subscription.id), cursor, limit)

    async def replace(self, webhook: Webhook, *, expected_revision: int) -> bool:
        self.outage.check()
        self.before_replace()
        subscription = webhook.subscription
        stored = await self.get(subscription.workspace_id, subscription.id)
        if stored is None or stored.subscription.revision != expected_revision:
            return False
        self.webhooks[subscription.id] = webhook
        return True

    async def delete(self, workspace_id: str, webhook_id: str, *, expected_revision: int | None = None) -> bool:
        self.outage.check()
        self.before_replace()
        stored = await self.get(workspace_id, webhook_id)
        if stored is None or expected_revision not in (None, stored.subscription.revision):
            return False
        del self.webhooks[webhook_id]
        return True


def _has_text(webhook: Webhook, text: str | None) -> bool:
    if text is None or text == webhook.subscription.id:
        return True
    return any(text.lower() in part.lower() for part in (webhook.name or "", webhook.url))


class MemoryApiKeyStore:
    """`ApiKeyStore` in memory."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.keys: dict[bytes, ApiKey] = {}

    async def insert(self, key: ApiKey, secret_hash: bytes, *, at_most: int | None = None) -> bool:
        self.outage.check()
        workspaces = [each.workspace_id for each in self.keys.values()]
        if at_most is not None and workspaces.count(key.workspace_id) >= at_most:
            return False
        self.keys[secret_hash] = key
        return True

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        self.outage.check()
        return self.keys.get(secret_hash)

    async def list(self, workspace_id: str | None) -> Sequence[ApiKey]:
        self.outage.check()
        wanted = [key for key in self.keys.values() if workspace_id in (None, key.workspace_id)]
        return sorted(wanted, key=lambda key: (key.created_at_ms, key.id), reverse=True)

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ApiKey]:
        rows = await self.list(workspace_id)
        return paged(rows, lambda key: (key.created_at_ms, key.id), cursor, limit)

    async def delete(self, workspace_id: str | None, key_id: str) -> ApiKey | None:
        self.outage.check()
        for digest, key in self.keys.items():
            if key.id == key_id and workspace_id in (None, key.workspace_id):
                return self.keys.pop(digest)
        return None

    async def touch(self, key_ids: Iterable[str], now_ms: int) -> None:
        self.outage.check()
        touched = set(key_ids)
        for digest, key in self.keys.items():
            if key.id in touched:
                self.keys[digest] = dataclasses.replace(key, last_used_at_ms=now_ms)


class MemoryDeliveryLogReader:
    """`DeliveryLogReader` over a list that the test fills. `since` is included, `until` is not."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.deliveries: list[LoggedDelivery] = []

    async def page(
        self, workspace_id: str, subscription_id: str, wanted: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        self.outage.check()
        rows = [
            dataclasses.replace(row, attempts=[])
            for row in self.deliveries
            if (row.workspace_id, row.subscription_id) == (workspace_id, subscription_id) and _meets(row, wanted)
        ]
        return paged(rows, lambda row: (row.created_at_ms, row.delivery_id), cursor, limit)

    async def get(self, workspace_id: str, subscription_id: str, delivery_id: str) -> LoggedDelivery | None:
        self.outage.check()
        wanted = (workspace_id, subscription_id, delivery_id)
        for row in self.deliveries:
            if (row.workspace_id, row.subscription_id, row.delivery_id) == wanted:
                return row
        return None


def _meets(row: LoggedDelivery, wanted: DeliveryFilter) -> bool:
    return (
        wanted.status in (None, row.status)
        and wanted.event_type in (None, row.event_type)
        and (wanted.since_ms is None or row.created_at_ms >= wanted.since_ms)
        and (wanted.until_ms is None or row.created_at_ms < wanted.until_ms)
    )


class MemoryFailedDeliveries:
    """`FailedDeliveries` over what a reader holds; `MAX_HANDLED` a call is the real one's business."""

    def __init__(self, log: MemoryDeliveryLogReader, outage: Outage | None = None) -> None:
        self._log = log
        self.outage = outage or log.outage

    async def page(
        self, workspace_id: str, wanted: FailedFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        self.outage.check()
        rows = [dataclasses.replace(row, attempts=[]) for row in self._chosen(workspace_id, wanted)]
        return paged(rows, lambda row: (row.created_at_ms, row.delivery_id), cursor, limit)

    async def summary(self, workspace_id: str, wanted: FailedFilter) -> FailedSummary:
        self.outage.check()
        rows = self._chosen(workspace_id, wanted)
        return FailedSummary(
            total=len(rows),
            complete=True,
            by_webhook=_counted(row.subscription_id for row in rows),
            by_type=_counted(row.event_type for row in rows),
            by_reason=_counted(row.reason for row in rows),
            by_response_code=_counted(row.response_code for row in rows),
            by_hour_ms=sorted(
                _counted(row.created_at_ms // 3_600_000 * 3_600_000 for row in rows), key=lambda each: -each.value
            ),
        )

    async def get(self, workspace_id: str, delivery_id: str) -> LoggedDelivery | None:
        self.outage.check()
        for row in self._log.deliveries:
            if (row.workspace_id, row.delivery_id, row.status, row.test) == (
                workspace_id,
                delivery_id,
                "failed",
                False,
            ):
                return row
        return None

    async def handle(self, workspace_id: str, wanted: FailedFilter, now_ms: int) -> Handled:
        self.outage.check()
        rows = self._chosen(workspace_id, wanted)
        for row in rows:
            row.handled_at_ms = now_ms
        return Handled(len(rows), more=False)

    def _chosen(self, workspace_id: str, wanted: FailedFilter) -> list[LoggedDelivery]:
        return [row for row in self._log.deliveries if row.workspace_id == workspace_id and is_chosen(row, wanted)]


def is_chosen(row: LoggedDelivery, wanted: FailedFilter) -> bool:
    """Say whether a delivery is a dead letter that is asked for."""
    return (
        row.status == "failed"
        and not row.test
        and row.handled_at_ms is None
        and wanted.subscription_id in (None, row.subscription_id)
        and wanted.event_type in (None, row.event_type)
        and wanted.reason in (None, row.reason)
        and (wanted.response_code is None or row.response_code in statuses(wanted.response_code))
        and (wanted.since_ms is None or row.created_at_ms >= wanted.since_ms)
        and (wanted.until_ms is None or row.created_at_ms < wanted.until_ms)
        and (wanted.delivery_ids is None or row.delivery_id in wanted.delivery_ids)
    )


def _counted(values: Iterable[T]) -> list[FailedCount[T]]:
    counts = sorted(Counter(values).items(), key=lambda each: (-each[1], each[0]))
    return [FailedCount(value, count) for value, count in counts]


class MemoryAuditStore:
    """`AuditStore` in memory."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.entries: list[AuditEntry] = []

    async def insert(self, entry: AuditEntry) -> None:
        self.outage.check()
        self.entries.append(entry)

    async def page(self, workspace_id: str, wanted: AuditFilter, cursor: str | None, limit: int) -> Page[AuditEntry]:
        self.outage.check()
        rows = [
            entry
            for entry in self.entries
            if entry.workspace_id == workspace_id
            and wanted.action in (None, entry.action)
            and wanted.target_id in (None, entry.target_id)
            and (wanted.since_ms is None or entry.at_ms >= wanted.since_ms)
            and (wanted.until_ms is None or entry.at_ms < wanted.until_ms)
        ]
        return paged(rows, lambda entry: (entry.at_ms, entry.id), cursor, limit)


class MemoryIdempotencyStore:
    """`IdempotencyStore` in memory. `claims` holds each claim and its answer."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.claims: dict[str, tuple[Claim, bytes | None]] = {}

    async def claim(self, claim: Claim) -> ClaimedRequest | None:
        self.outage.check()
        held, answer = self.claims.get(claim.id, (None, None))
        if held is not None and claim.now_ms < held.expires_at_ms:
            same = held.request_hash == claim.request_hash
            if answer is not None or not same or claim.now_ms < held.leased_until_ms:
                return ClaimedRequest(held.request_hash, answer)
        self.claims[claim.id] = (claim, None)
        return None

    async def finish(self, claim: Claim, answer: bytes) -> None:
        self.outage.check()
        if self.claims.get(claim.id, (None, None))[0] is claim:
            self.claims[claim.id] = (claim, answer)

    async def abandon(self, claim: Claim) -> None:
        self.outage.check()
        if self.claims.get(claim.id, (None, None))[0] is claim:
            del self.claims[claim.id]


def paged(rows: Sequence[T], position: Callable[[T], Position], cursor: str | None, limit: int) -> Page[T]:
    """Cut one page out of rows, newest first, starting after the cursor's position."""
    ordered = sorted(rows, key=position, reverse=True)
    if cursor is not None:
        after = _read(cursor)
        ordered = [row for row in ordered if position(row) < after]
    more = len(ordered) > limit
    shown = ordered[:limit]
    return Page(shown, _write(position(shown[-1])) if more else None)


def _write(position: Position) -> str:
    return base64.urlsafe_b64encode(f"{position[0]}:{position[1]}".encode()).decode()


def _read(cursor: str) -> Position:
    try:
        at, _, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        return int(at), row_id
    except (binascii.Error, ValueError):
        raise InvalidInputError({"cursor": "is none of ours; leave it out for the first page"}) from None
