# ruff: noqa: D102 - the ports say what each method promises
"""Failing endpoints in memory, and a clock that both of its parties share."""

from collections.abc import Sequence
from dataclasses import replace

from dispatcher.core.endpoint_health import FailingEndpoint, HealthNote
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Subscription, Webhook
from dispatcher.ports import Clock


class MemoryEndpointHealth:
    """An `EndpointHealthStore`.

    Attributes:
        down: While True MongoDB is out of reach.
        endpoints: What is known, by key.
        claimed_ms: When each was claimed.
        delivered: Webhooks of which the delivery log has a success.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.down = False
        self.endpoints: dict[str, FailingEndpoint] = {}
        self.claimed_ms: dict[str, int] = {}
        self.delivered: set[str] = set()

    async def note(self, notes: Sequence[HealthNote]) -> None:
        self._answer()
        for note in notes:
            known = self.endpoints.get(note.webhook_id)
            if known and _ends(note, known):
                self._remove(note.webhook_id)
                known = None
            if note.first_failure_ms is None:
                continue
            if known is None or known.endpoint_revision < note.endpoint_revision:
                self._remove(note.webhook_id)
                known = FailingEndpoint(
                    note.webhook_id,
                    note.workspace_id,
                    note.endpoint_revision,
                    note.first_failure_ms,
                    note.last_failure_ms,
                    key=note.webhook_id,
                )
            elif known.endpoint_revision == note.endpoint_revision:
                known = replace(
                    known,
                    failing_since_ms=min(known.failing_since_ms, note.first_failure_ms),
                    last_failure_ms=max(known.last_failure_ms, note.last_failure_ms),
                )
            self.endpoints[note.webhook_id] = known

    async def load(self) -> Sequence[FailingEndpoint]:
        self._answer()
        return list(self.endpoints.values())

    async def claim(self, endpoint: FailingEndpoint, taken_over_after_ms: int) -> bool:
        self._answer()
        claimed_ms = self.claimed_ms.get(endpoint.key)
        if not self._is_same(endpoint):
            return False
        if claimed_ms is not None and claimed_ms >= self._clock.now_ms() - taken_over_after_ms:
            return False
        self.claimed_ms[endpoint.key] = self._clock.now_ms()
        return True

    async def announce_gone(self, endpoint: FailingEndpoint) -> None:
        self._answer()
        self.endpoints[endpoint.key] = endpoint
        self.claimed_ms[endpoint.key] = self._clock.now_ms()

    async def set_warned(self, endpoint: FailingEndpoint) -> None:
        self._answer()
        if self._is_same(endpoint):
            self.endpoints[endpoint.key] = replace(self.endpoints[endpoint.key], warned=True)
            self.claimed_ms.pop(endpoint.key, None)

    async def forget(self, endpoint: FailingEndpoint) -> None:
        self._answer()
        if self._is_same(endpoint):
            self._remove(endpoint.key)

    async def delivered_since(self, endpoint: FailingEndpoint) -> bool:
        self._answer()
        return endpoint.webhook_id in self.delivered

    def _answer(self) -> None:
        if self.down:
            raise UnavailableError("MongoDB is out of reach")

    def _is_same(self, endpoint: FailingEndpoint) -> bool:
        known = self.endpoints.get(endpoint.key)
        return known is not None and replace(known, last_failure_ms=0) == replace(endpoint, last_failure_ms=0)

    def _remove(self, key: str) -> None:
        self.endpoints.pop(key, None)
        self.claimed_ms.pop(key, None)


class MemoryWebhookStates:
    """A `WebhookReader` and a `SubscriptionLookup` over one set of webhooks.

    Attributes:
        stored: Webhooks by id.
        down: While True MongoDB is out of reach.
        answers_are_lost: While True a webhook is disabled and the answer never comes.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Webhook] = {}
        self.down = False
        self.answers_are_lost = False

    def put(self, subscription: Subscription) -> None:
        """Store a webhook."""
        self.stored[subscription.id] = Webhook(subscription, "https://example.com", None, None, 0, 0)

    async def get(self, workspace_id: str, webhook_id: str) -> Webhook | None:
        self._answer()
        webhook = self.stored.get(webhook_id)
        return webhook if webhook is not None and webhook.subscription.workspace_id == workspace_id else None

    async def find(self, subscription_id: str) -> Subscription | None:
        self._answer()
        webhook = self.stored.get(subscription_id)
        return None if webhook is None else webhook.subscription

    async def disable(self, subscription: Subscription, reason: str, now_ms: int) -> bool:
        self._answer()
        webhook = self.stored.get(subscription.id)
        if webhook is None or webhook.subscription.status != subscription.status:
            return False
        if webhook.subscription.endpoint_revision != subscription.endpoint_revision:
            return False
        disabled = replace(webhook.subscription, status="disabled", revision=webhook.subscription.revision + 1)
        self.stored[subscription.id] = replace(
            webhook, subscription=disabled, disabled_reason=reason, disabled_at_ms=now_ms
        )
        if self.answers_are_lost:
            raise UnavailableError("MongoDB's answer is lost")
        return True

    def _answer(self) -> None:
        if self.down:
            raise UnavailableError("MongoDB is out of reach")


def _ends(note: HealthNote, known: FailingEndpoint) -> bool:
    return (
        note.succeeded_at_ms is not None
        and known.endpoint_revision <= note.endpoint_revision
        and known.failing_since_ms <= note.succeeded_at_ms
    )
