"""What the dispatcher itself changes about a webhook is written down like everybody else's changes."""

from dispatcher.core.model import Status, Subscription
from dispatcher.operations.audit import DISPATCHER, Audit
from dispatcher.ports import SubscriptionLookup


class AuditedSubscriptions:
    """A `SubscriptionLookup` that writes down what it disables; implements `dispatcher.ports.SubscriptionLookup`.

    Args:
        subscriptions: Looks up and disables.
        audit: Where it is written down.
    """

    def __init__(self, subscriptions: SubscriptionLookup, audit: Audit) -> None:
        self._subscriptions = subscriptions
        self._audit = audit

    async def find(self, subscription_id: str) -> Subscription | None:
        """See `SubscriptionLookup`."""
        return await self._subscriptions.find(subscription_id)

    async def disable(self, subscription: Subscription, reason: str, now_ms: int) -> bool:
        """See `SubscriptionLookup`; an entry that can't be stored doesn't undo it."""
        disabled = await self._subscriptions.disable(subscription, reason, now_ms)
        if disabled:
            changes = {
                "status": (str(subscription.status), Status.DISABLED.value),
                "disabled_reason": (None, reason),
            }
            await self._audit.note(subscription.workspace_id, DISPATCHER, "webhook.disable", subscription.id, changes)
        return disabled
