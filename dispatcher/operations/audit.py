"""Who changed what, and when: written down by every operation that changes something, read by the workspace's admin."""

from collections.abc import Mapping
from typing import Any

import structlog

from dispatcher.core.errors import InvalidInputError, UnavailableError
from dispatcher.operations.identifiers import Draw, new_id
from dispatcher.operations.times import read_span
from dispatcher.ports import Actor, ApiKey, AuditEntry, AuditFilter, AuditStore, Clock, Page

KEY_ACTOR = "api_key"
COMMAND_LINE = Actor("command_line")
"""Somebody who can run commands on the machine."""
DISPATCHER = Actor("dispatcher")
"""What happens by itself, such as the end of a webhook whose endpoint is gone."""

ACTIONS = (
    "webhook.create",
    "webhook.update",
    "webhook.delete",
    "webhook.rotate_secret",
    "webhook.test",
    "webhook.disable",
    "delivery.redeliver",
    "replay.create",
    "replay.cancel",
    "dead_letters.purge",
    "dead_letters.replay",
    "api_key.create",
    "api_key.revoke",
    "secrets.rotate_key",
)
FILTERS = ("action", "target", "since", "until")
"""What a listing can be filtered by, as callers name it."""

MAX_ID_LENGTH = 128

_log = structlog.get_logger(__name__)


def actor_of(key: ApiKey) -> Actor:
    """Return whoever uses an API key."""
    return Actor(KEY_ACTOR, key.id, key.name)


def read_audit_filter(sent: Mapping[str, str]) -> AuditFilter:
    """Read a filter from text, as it stands in a URL or a form.

    Args:
        sent: Any of `FILTERS` to its text; what is missing filters nothing.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    (since_ms, until_ms), problems = read_span(sent)
    action, target = sent.get("action"), sent.get("target")
    if action is not None and action not in ACTIONS:
        problems["action"] = f"send one of {', '.join(ACTIONS)}"
    if target is not None and not 0 < len(target) <= MAX_ID_LENGTH:
        problems["target"] = "send the id of a webhook, a delivery, a replay or an API key"
    if problems:
        raise InvalidInputError(problems)
    return AuditFilter(action=action, target_id=target, since_ms=since_ms, until_ms=until_ms)


class Audit:
    """The changes of all workspaces; each call sees one workspace and nothing else.

    Args:
        store: Where they are kept.
        clock: Time.
        draw: Random bytes.
    """

    def __init__(self, store: AuditStore, clock: Clock, draw: Draw) -> None:
        self._store = store
        self._clock = clock
        self._draw = draw

    async def note(
        self,
        workspace_id: str,
        by: Actor,
        action: str,
        target_id: str,
        changes: Mapping[str, tuple[Any, Any]] | None = None,
    ) -> None:
        """Write down a change that was just made.

        It never fails what it tells of: the change stands, and its caller may wait for a secret that is shown once.
        An entry that can't be stored goes to the process's log instead.

        Args:
            workspace_id: Whose it is.
            by: Who made it.
            action: One of `ACTIONS`.
            target_id: What was changed.
            changes: Field to (before, after) as JSON values; no secrets.
        """
        entry = AuditEntry(
            id=new_id("aud_", self._draw),
            workspace_id=workspace_id,
            at_ms=self._clock.now_ms(),
            actor=by,
            action=action,
            target_id=target_id,
            changes=changes or {},
        )
        try:
            await self._store.insert(entry)
        except UnavailableError as error:
            _log.error("change was made and could not be written down", entry=repr(entry), problem=str(error))

    async def page(self, workspace_id: str, wanted: AuditFilter, cursor: str | None, limit: int) -> Page[AuditEntry]:
        """Return one page, newest first.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: The store is out of reach.
        """
        return await self._store.page(workspace_id, wanted, cursor, limit)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two states of a thing: field to (before, after)."""
    names = dict.fromkeys((*before, *after))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
