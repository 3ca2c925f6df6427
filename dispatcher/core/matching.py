"""Which subscriptions an event goes to.

For each workspace one dictionary from pattern to subscriptions. An event's type is asked for as itself, as each
of its dotted prefixes followed by `.*`, and as `*`: the cost of matching grows with the segments of the type and
with the matches, not with the number of subscriptions.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from dispatcher.core.model import Status, Subscription

TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""A well-formed event type."""

REMEMBERED_REMOVALS = 10_000
"""Of so many removed subscriptions it is remembered that they are gone."""

_NOTHING: dict[str, Subscription] = {}


def is_pattern(text: str) -> bool:
    """Say whether a text may stand in a subscription's `events`: a type, `prefix.*`, or `*`."""
    if text == "*":
        return True
    return is_type(text.removesuffix(".*"))


@lru_cache(4096)
def is_type(text: str) -> bool:
    """Say whether a text is a well-formed event type."""
    return TYPE.fullmatch(text) is not None


@lru_cache(4096)
def patterns_of(event_type: str) -> tuple[str, ...]:
    """Return every pattern that matches a type, the most exact first.

    `user.*` matches every type under `user.`, at any depth, and not `user` itself.
    """
    patterns = [event_type]
    end = event_type.rfind(".")
    while end > 0:
        patterns.append(event_type[:end] + ".*")
        end = event_type.rfind(".", 0, end)
    return (*patterns, "*")


class SubscriptionIndex:
    """The subscriptions of all workspaces, in memory.

    Holds subscriptions of every status, so that a retry finds the one it is for; matches active ones only.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        self._by_workspace: dict[str, dict[str, dict[str, Subscription]]] = {}
        self._removed: dict[str, None] = {}  # the longest ago first

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._by_id.values()))

    def get(self, subscription_id: str) -> Subscription | None:
        """Return a subscription of any status, or None."""
        return self._by_id.get(subscription_id)

    def put(self, subscription: Subscription) -> bool:
        """Add a subscription, or take its newer revision.

        Returns:
            False where the index held a newer revision already; it then stays as it was.
        """
        known = self._by_id.get(subscription.id)
        if known is not None:
            if known.revision > subscription.revision:
                return False
            self._unlink(known)
        self._by_id[subscription.id] = subscription
        self._removed.pop(subscription.id, None)
        if subscription.status == Status.ACTIVE:
            patterns = self._by_workspace.setdefault(subscription.workspace_id, {})
            for pattern in subscription.events:
                patterns.setdefault(pattern, {})[subscription.id] = subscription
        return True

    def remove(self, subscription_id: str) -> None:
        """Forget a subscription; one that isn't held is no error."""
        known = self._by_id.pop(subscription_id, None)
        if known is not None:
            self._unlink(known)
        self._removed[subscription_id] = None
        if len(self._removed) > REMEMBERED_REMOVALS:
            del self._removed[next(iter(self._removed))]

    def was_removed(self, subscription_id: str) -> bool:
        """Say whether a subscription is one of the `REMEMBERED_REMOVALS` that were removed last."""
        return subscription_id in self._removed

    def match(self, workspace_id: str, event_type: str) -> list[Subscription]:
        """Return the active subscriptions of this workspace that want this type, each once."""
        patterns = self._by_workspace.get(workspace_id)
        if patterns is None:
            return []
        found: dict[str, Subscription] | None = None
        for pattern in patterns_of(event_type):
            holders = patterns.get(pattern)
            if holders:
                found = holders if found is None else {**found, **holders}
        return [] if found is None else list(found.values())

    def _unlink(self, known: Subscription) -> None:
        patterns = self._by_workspace.get(known.workspace_id, {})
        for pattern in known.events:
            holders = patterns.get(pattern, _NOTHING)
            holders.pop(known.id, None)
            if not holders:
                patterns.pop(pattern, None)
        if not patterns:
            self._by_workspace.pop(known.workspace_id, None)
