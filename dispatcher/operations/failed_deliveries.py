"""A workspace's dead letters as its delivery log has them: list and count, send again, mark as handled.

Records of source topics that are no events belong to nobody's workspace: those are on the dead-letter topic alone.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from dispatcher.core.dead_letters import statuses
from dispatcher.core.delivery_log import FailedFilter, LoggedDelivery
from dispatcher.core.errors import InvalidInputError, NotFoundError
from dispatcher.core.matching import TYPE
from dispatcher.core.model import DeadLetterReason
from dispatcher.core.reruns import ReplayJob
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.gates import Gate, make_gate_of_counts
from dispatcher.operations.inputs import Input, read_input
from dispatcher.operations.replays import RATE_HINT, Rate, Replays, Time
from dispatcher.operations.times import parse_rfc3339, read_span
from dispatcher.ports import Actor, Clock, FailedDeliveries, FailedSummary, Handled, Page

FILTERS = ("subscription", "type", "reason", "response_code", "since", "until")
"""What dead letters are chosen by, as callers name it."""

MAX_ID_LENGTH = 128
MAX_DELIVERY_IDS = 200
"""As many as a page has."""
RESPONSE_CODE_PATTERN = "^(?:none|[1-9][0-9]{2}|[1-9][xX]{2})$"

_REASONS = ", ".join(DeadLetterReason)
_TYPE_HINT = "one event type, such as user.created"
_CODE_HINT = "a status code such as 503, a class such as 5xx, or none: no response came"
_ANY = (*FILTERS, "delivery_ids")


def _type(value: str) -> str:
    if not TYPE.fullmatch(value):
        raise ValueError(f"send {_TYPE_HINT}")
    return value


def _reason(value: str) -> str:
    if value not in set(DeadLetterReason):
        raise ValueError(f"send one of {_REASONS}")
    return value


def _response_code(value: str) -> str:
    statuses(value)
    return value.lower()


def read_failed_filter(sent: Mapping[str, str]) -> FailedFilter:
    """Read a filter from text, as it stands in a URL or a form.

    Args:
        sent: Any of `FILTERS` to its text; what is missing filters nothing.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    (since_ms, until_ms), problems = read_span(sent)
    checks = {"subscription": _subscription, "type": _type, "reason": _reason, "response_code": _response_code}
    read: dict[str, str] = {}
    for name, check in checks.items():
        if name in sent:
            try:
                read[name] = check(sent[name])
            except ValueError as error:
                problems[name] = str(error)
    if problems:
        raise InvalidInputError(problems)
    return FailedFilter(
        subscription_id=read.get("subscription"),
        event_type=read.get("type"),
        reason=read.get("reason"),
        response_code=read.get("response_code"),
        since_ms=since_ms,
        until_ms=until_ms,
    )


def _subscription(value: str) -> str:
    if not 0 < len(value) <= MAX_ID_LENGTH:
        raise ValueError("send a webhook's id, wh_…")
    return value


Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]


class DeadLetterSelection(Input):
    """Which dead letters: those that all of it is true of; at least one field says so."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in _ANY],
            "examples": [{"subscription": "wh_aagqbsjtmshber5whitc3iw66i", "reason": "attempts_exhausted"}],
        }
    )

    subscription: Id | None = Field(None, description="a webhook's id, wh_…")
    type: Annotated[str, Field(json_schema_extra={"pattern": f"^{TYPE.pattern}$"}), AfterValidator(_type)] | None = (
        Field(None, description=_TYPE_HINT)
    )
    reason: (
        Annotated[str, Field(json_schema_extra={"enum": list(DeadLetterReason)}), AfterValidator(_reason)] | None
    ) = Field(None, description=f"one of {_REASONS}: why they failed for good")
    response_code: (
        Annotated[str, Field(json_schema_extra={"pattern": RESPONSE_CODE_PATTERN}), AfterValidator(_response_code)]
        | None
    ) = Field(None, description=f"{_CODE_HINT}; of the last attempt")
    since: Time | None = Field(None, description="an RFC 3339 time: the first time of creation that counts")
    until: Time | None = Field(None, description="an RFC 3339 time: the first time of creation that doesn't count")
    delivery_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_DELIVERY_IDS)] | None = Field(
        None, description=f"a list of 1 to {MAX_DELIVERY_IDS} ids of deliveries, del_…: only some of these"
    )


class DeadLetterReplay(DeadLetterSelection):
    """Which dead letters to send again, and how fast."""

    rate: Rate | None = Field(None, description=RATE_HINT)


class DeadLetters:
    """The dead letters of all workspaces; each call sees one workspace and nothing else.

    Args:
        store: The delivery log.
        replays: Makes the jobs.
        clock: Time.
        audit: Where it is written down who marked what; None: nowhere.
        reads: Bounds how much that goes through many deliveries is under way; None: a gate of its own.
    """

    def __init__(
        self,
        store: FailedDeliveries,
        replays: Replays,
        clock: Clock,
        *,
        audit: Audit | None = None,
        reads: Gate | None = None,
    ) -> None:
        self._reads = reads or make_gate_of_counts()
        self._store = store
        self._replays = replays
        self._clock = clock
        self._audit = audit

    async def page(
        self, workspace_id: str, wanted: FailedFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        """Return one page of those that nobody handled, of all webhooks, newest first, attempts left out.

        Deliveries of webhooks that were deleted since are among them.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: The store is out of reach.
        """
        return await self._store.page(workspace_id, wanted, cursor, limit)

    async def summary(self, workspace_id: str, wanted: FailedFilter) -> FailedSummary:
        """Count those that nobody handled.

        Raises:
            TooManyRequestsError: Too much is counted for this workspace already.
            UnavailableError: The store is out of reach.
        """
        async with self._reads.enter(workspace_id):
            return await self._store.summary(workspace_id, wanted)

    async def get(self, workspace_id: str, delivery_id: str) -> LoggedDelivery:
        """Return one with its attempts, handled or not.

        Raises:
            NotFoundError: There is none of this id in this workspace.
            UnavailableError: The store is out of reach.
        """
        found = await self._store.get(workspace_id, delivery_id)
        if found is None:
            raise NotFoundError(
                "there is no such dead letter in this workspace (one that was sent again is none any more); "
                "GET /v1/dead-letters lists those there are"
            )
        return found

    async def replay(self, workspace_id: str, sent: Any, *, by: Actor = COMMAND_LINE) -> ReplayJob:
        """Make a job that sends a selection again.

        Args:
            workspace_id: The tenant.
            sent: A JSON-like object, as `DeadLetterReplay` says.
            by: Who asks for it.

        Raises:
            InvalidInputError: It names every wrong field; no job is made.
            ConflictError: The webhook that is named is not there or not active, or too many jobs wait or run already.
            UnavailableError: The store is out of reach.
        """
        read = read_input(DeadLetterReplay, sent, items=_ITEMS)
        return await self._replays.create_of_failed(workspace_id, _filter_of(read), read.rate, by=by)

    async def purge(self, workspace_id: str, sent: Any, *, by: Actor = COMMAND_LINE) -> Handled:
        """Mark a selection as handled: it leaves the lists, until it is sent again and fails again.

        Args:
            workspace_id: The tenant.
            sent: A JSON-like object, as `DeadLetterSelection` says.
            by: Who asks for it.

        Returns:
            How many were marked, and whether some are left: a call marks a bounded number.

        Raises:
            InvalidInputError: It names every wrong field; nothing is marked.
            TooManyRequestsError: Too much is counted or marked for this workspace already; nothing is marked.
            UnavailableError: The store is out of reach; some may be marked.
        """
        read = read_input(DeadLetterSelection, sent, items=_ITEMS)
        wanted = _filter_of(read)
        async with self._reads.enter(workspace_id):
            handled = await self._store.handle(workspace_id, wanted, self._clock.now_ms())
        if self._audit is not None and handled.count:
            told = {**read.model_dump(exclude_none=True), "count": handled.count}
            changes = {name: (None, value) for name, value in told.items()}
            await self._audit.note(workspace_id, by, "dead_letters.purge", read.subscription or workspace_id, changes)
        return handled


_ITEMS = {"delivery_ids": "a delivery's id, del_…"}


def _filter_of(read: DeadLetterSelection) -> FailedFilter:
    """Return what a selection chooses.

    Raises:
        InvalidInputError: It chooses everything, or no time at all.
    """
    if all(getattr(read, name) is None for name in _ANY):
        raise InvalidInputError(
            {"since": f"send at least one of {', '.join(_ANY)}; since alone takes all from then on"}
        )
    since_ms, until_ms = (None if each is None else parse_rfc3339(each) for each in (read.since, read.until))
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise InvalidInputError({"until": "is not after since; send a later time"})
    return FailedFilter(
        subscription_id=read.subscription,
        event_type=read.type,
        reason=read.reason,
        response_code=read.response_code,
        since_ms=since_ms,
        until_ms=until_ms,
        delivery_ids=None if read.delivery_ids is None else tuple(dict.fromkeys(read.delivery_ids)),
    )
