# ruff: noqa: D102 - the ports say what each method promises
"""Sealed values in memory."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from dispatcher.core.errors import UnavailableError
from dispatcher.ports import SealedWebhook


class MemorySealedStore:
    """`SealedStore` in memory.

    Attributes:
        webhooks: By id.
        before_reseal: Runs before each replacement, to make races; is given the id.
        reseals_left: So many replacements go through before the store is out of reach.
    """

    def __init__(self, *webhooks: SealedWebhook) -> None:
        self.webhooks = {webhook.id: webhook for webhook in webhooks}
        self.before_reseal: Callable[[str], None] = lambda _: None
        self.reseals_left = 1_000_000

    async def batches(self) -> AsyncGenerator[Sequence[SealedWebhook], None]:
        rows = [self.webhooks[key] for key in sorted(self.webhooks)]
        for start in range(0, len(rows), 3):
            yield rows[start : start + 3]

    async def get(self, webhook_id: str) -> SealedWebhook | None:
        return self.webhooks.get(webhook_id)

    async def reseal(self, webhook: SealedWebhook, values: Mapping[str, bytes]) -> bool:
        self.before_reseal(webhook.id)
        if not self.reseals_left:
            raise UnavailableError("MongoDB is out of reach")
        self.reseals_left -= 1
        stored = self.webhooks.get(webhook.id)
        if stored is None or stored.revision != webhook.revision or stored.values is None:
            return False
        changed = {place: (stored.values[place][0], sealed) for place, sealed in values.items()}
        self.webhooks[webhook.id] = replace(stored, revision=stored.revision + 1, values={**stored.values, **changed})
        return True
