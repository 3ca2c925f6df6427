# ruff: noqa: D102 - the port says what each method promises
"""What the dispatcher disables is written down."""

import dataclasses

from dispatcher.operations.audit import DISPATCHER, Audit
from dispatcher.operations.disabling import AuditedSubscriptions
from tests.fakes.api_stack import START_MS, ManualClock, draws
from tests.fakes.stores import MemoryAuditStore
from tests.unit.mongo.samples import webhook


class Lookup:
    """Knows one subscription, and disables it once."""

    def __init__(self, subscription):
        self.subscription, self.disabled = subscription, None

    async def find(self, subscription_id):
        return self.subscription if subscription_id == self.subscription.id else None

    async def disable(self, subscription, reason, now_ms):
        first, self.disabled = self.disabled is None, (subscription, reason, now_ms)
        return first


async def test_what_is_disabled_is_written_down_once():
    """The entry names the dispatcher, the webhook and the reason; where nothing was disabled there is none."""
    subscription = dataclasses.replace(webhook().subscription, status="active")
    lookup, noted = Lookup(subscription), MemoryAuditStore()
    audited = AuditedSubscriptions(lookup, Audit(noted, ManualClock(), draws()))
    assert await audited.find(subscription.id) is subscription
    assert await audited.find("wh_other") is None
    assert await audited.disable(subscription, "gone", START_MS)
    assert lookup.disabled == (subscription, "gone", START_MS)
    assert not await audited.disable(subscription, "gone", START_MS)
    (entry,) = noted.entries
    assert (entry.workspace_id, entry.actor, entry.action, entry.target_id) == (
        subscription.workspace_id,
        DISPATCHER,
        "webhook.disable",
        subscription.id,
    )
    assert entry.changes == {"status": ("active", "disabled"), "disabled_reason": (None, "gone")}
