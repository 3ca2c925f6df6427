"""Seal what is stored with the first of the encryption keys, so that the others can be left out of the settings.

What stands in a cookie or is kept for an idempotency key ends by itself, and is left alone.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from dispatcher.core.errors import SealError
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding, key_id_of
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.identifiers import Draw
from dispatcher.ports import Actor, SealedStore, SealedWebhook

ACTION = "secrets.rotate_key"
MAX_NAMED = 100
"""As many webhooks are named that can't be opened; all are counted."""

_AT_ONCE = 32
_TRIES = 10

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class KeySurvey:
    """Which keys the stored secrets are sealed with.

    Attributes:
        webhooks: How many there are.
        values: Id of each configured key, in their order, to the number of values that it sealed and opens.
        closed: How many values no configured key opens.
        unreadable: How many stored webhooks can't be read at all.
        named: Some of the webhooks with such values.
    """

    webhooks: int
    values: Mapping[str, int]
    closed: int
    unreadable: int
    named: tuple[str, ...]

    @property
    def former(self) -> int:
        """How many values another key than the first has sealed."""
        return sum(list(self.values.values())[1:])

    @property
    def is_done(self) -> bool:
        """Whether every stored secret is sealed with the first key."""
        return not (self.former or self.closed or self.unreadable)


@dataclass(frozen=True, slots=True)
class KeyRotated:
    """What a rotation did.

    Attributes:
        webhooks: How many webhooks were changed.
        values: How many of their values were sealed anew.
        survey: What is stored now.
    """

    webhooks: int
    values: int
    survey: KeySurvey


@dataclass(slots=True)
class _Count:
    webhooks: int = 0
    values: int = 0


class KeyRotation:
    """Seals the secrets of all workspaces anew.

    Safe beside everything else that goes on: a value is replaced where its webhook is still what was read, by one that
    opens to the same; so it can be broken off anywhere, and run again.

    Args:
        store: The sealed values.
        keyring: Opens with all keys, seals with the first.
        draw: Random bytes, fit for secrets.
        audit: Where each workspace is told of it.
    """

    def __init__(self, store: SealedStore, keyring: Keyring, draw: Draw, audit: Audit) -> None:
        self._store = store
        self._keyring = keyring
        self._draw = draw
        self._audit = audit

    async def survey(self, tell: Tell = lambda _: None) -> KeySurvey:
        """Count the stored values by key, and open each one.

        Args:
            tell: Told how many webhooks were looked at, now and then.

        Raises:
            UnavailableError: The store is out of reach.
        """
        found: Counter[str] = Counter()
        webhooks = unreadable = 0
        named: list[str] = []
        async with aclosing(self._store.batches()) as batches:
            async for batch in batches:
                for webhook in batch:
                    keys = [self._opening_key(webhook, *value) for value in (webhook.values or {}).values()]
                    found.update(keys)
                    unreadable += webhook.values is None
                    if (webhook.values is None or "" in keys) and len(named) < MAX_NAMED:
                        named.append(webhook.id)
                webhooks += len(batch)
                tell(webhooks)
        values = {key_id: found[key_id] for key_id in self._keyring.ids}
        return KeySurvey(webhooks, values, found[""], unreadable, tuple(named))

    async def rotate(self, *, by: Actor = COMMAND_LINE, tell: Tell = lambda _: None) -> KeyRotated:
        """Seal with the first key whatever another one has sealed, then count what is stored.

        Each workspace's audit log is told before the first of its values is sealed anew: a kill leaves it there.

        Args:
            by: Who asks for it.
            tell: Told how many webhooks were gone through, now and then.

        Raises:
            UnavailableError: The store is out of reach; what was done is right, and running it again goes on.
        """
        count, seen, gate, told = _Count(), 0, asyncio.Semaphore(_AT_ONCE), set[str]()

        async def reseal(webhook: SealedWebhook) -> None:
            async with gate:
                await self._reseal(webhook, count)

        async with aclosing(self._store.batches()) as batches:
            async for batch in batches:
                due = [webhook for webhook in batch if self._is_due(webhook)]
                owners = {webhook.workspace_id for webhook in due}
                await self._note(sorted(owners - told), by)
                told |= owners
                # All of them end before a failure is told of: nothing is left under way.
                ended = await asyncio.gather(*map(reseal, due), return_exceptions=True)
                for error in ended:
                    if isinstance(error, BaseException):
                        raise error
                seen += len(batch)
                tell(seen)
        return KeyRotated(count.webhooks, count.values, await self.survey())

    async def _note(self, workspace_ids: Iterable[str], by: Actor) -> None:
        for workspace_id in workspace_ids:
            await self._audit.note(workspace_id, by, ACTION, self._keyring.ids[0])

    async def _reseal(self, webhook: SealedWebhook, count: _Count) -> None:
        """Seal one webhook's values anew; one that others keep changing is left for the next run."""
        current: SealedWebhook | None = webhook
        for _ in range(_TRIES):
            if current is None or not (renewed := self._renewed(current)):
                return
            if await self._store.reseal(current, renewed):
                count.webhooks += 1
                count.values += len(renewed)
                return
            current = await self._store.get(webhook.id)

    def _renewed(self, webhook: SealedWebhook) -> dict[str, bytes]:
        """Return new values for those that another key has sealed, and that can be opened."""
        renewed = {}
        for place, (purpose, sealed) in (webhook.values or {}).items():
            if not self._keyring.is_current(sealed):
                plain = self._opened(webhook, purpose, sealed)
                if plain is not None:
                    aad = binding(webhook.workspace_id, webhook.id, purpose)
                    renewed[place] = self._keyring.seal(plain, nonce=self._draw(NONCE_BYTES), aad=aad)
        return renewed

    def _is_due(self, webhook: SealedWebhook) -> bool:
        return any(not self._keyring.is_current(sealed) for _, sealed in (webhook.values or {}).values())

    def _opening_key(self, webhook: SealedWebhook, purpose: SealPurpose, sealed: bytes) -> str:
        """Return the id of the key that opens a value; empty where none does."""
        return "" if self._opened(webhook, purpose, sealed) is None else key_id_of(sealed)

    def _opened(self, webhook: SealedWebhook, purpose: SealPurpose, sealed: bytes) -> bytes | None:
        try:
            return self._keyring.open(sealed, aad=binding(webhook.workspace_id, webhook.id, purpose))
        except SealError:
            return None
