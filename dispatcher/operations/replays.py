"""Send the logged deliveries of a time again, or events that a webhook never got, as a job that workers go through."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.reruns import CHANCE_BYTES, ReplayJob, ReplaySource, new_run_id
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.identifiers import Draw
from dispatcher.operations.inputs import Input, read_input
from dispatcher.operations.redelivery import active_webhook
from dispatcher.operations.times import parse_rfc3339, rfc3339
from dispatcher.operations.webhooks import KNOWN_AFTER_MS
from dispatcher.ports import Actor, Clock, Page, ReplayStore, WebhookStore

MIN_RATE, MAX_RATE = 0.1, 100
"""Deliveries a second: the most is what a worker does anyway."""
MAX_UNFINISHED = 10
"""As many jobs of one workspace may wait or run: the others wait for them."""

_STATUSES = ", ".join(DeliveryStatus)
_OF_A_WEBHOOK = (ReplaySource.DELIVERIES, ReplaySource.EVENTS)
_SOURCES = " or ".join(_OF_A_WEBHOOK)


def _time(value: str) -> str:
    parse_rfc3339(value)
    return value


def _status(value: str) -> str:
    if value not in set(DeliveryStatus):
        raise ValueError(f"send one of {_STATUSES}, or leave it out for all that reached an end")
    return value


def _source(value: str) -> str:
    if value not in set(_OF_A_WEBHOOK):
        raise ValueError(f"send {_SOURCES}")
    return value


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_time)]
Rate = Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE, allow_inf_nan=False)]
RATE_HINT = f"deliveries a second as a number from {MIN_RATE} to {MAX_RATE}, or leave it out for {MAX_RATE}"


class ReplayInput(Input):
    """What a replay takes."""

    model_config = ConfigDict(
        json_schema_extra={
            # Events have no status.
            "not": {
                "properties": {"source": {"const": "events"}, "status": {"type": "string"}},
                "required": ["source", "status"],
            },
            "examples": [{"since": "2026-01-15T00:00:00Z", "until": "2026-01-16T00:00:00Z", "status": "failed"}],
        }
    )

    since: Time = Field(description="an RFC 3339 time, such as 2026-01-15T10:30:00Z: the first that counts")
    until: Time = Field(description="an RFC 3339 time, such as 2026-01-15T10:30:00Z: the first that doesn't count")
    status: Annotated[str, Field(json_schema_extra={"enum": list(DeliveryStatus)}), AfterValidator(_status)] | None = (
        Field(None, description=f"one of {_STATUSES}, or leave it out for all that reached an end")
    )
    source: Annotated[str, Field(json_schema_extra={"enum": list(_OF_A_WEBHOOK)}), AfterValidator(_source)] = Field(
        ReplaySource.DELIVERIES.value,
        description="deliveries (the default) sends logged deliveries again; events reads the source topics again and "
        "sends what the webhook wants and never got: without status",
    )
    rate: Rate | None = Field(None, description=RATE_HINT)


class Replays:
    """The replay jobs of all workspaces; each call sees one workspace and nothing else.

    Args:
        store: Where jobs are kept; workers take them from there.
        webhooks: Where webhooks are kept.
        clock: Time.
        draw: Random bytes.
        audit: Where it is written down who made and ended jobs; None: nowhere.
    """

    def __init__(
        self, store: ReplayStore, webhooks: WebhookStore, clock: Clock, draw: Draw, *, audit: Audit | None = None
    ) -> None:
        self._store = store
        self._webhooks = webhooks
        self._clock = clock
        self._draw = draw
        self._audit = audit

    async def create(self, workspace_id: str, webhook_id: str, sent: Any, *, by: Actor = COMMAND_LINE) -> ReplayJob:
        """Make a job that sends the deliveries created from `since` to before `until` again.

        With the source `events`, a backfill: of the events whose records are of that time it sends those that the
        webhook wants today and the delivery log holds nothing of.

        An `until` in the future counts as now: what is still to come is delivered anyway. A backfill may reach a few
        seconds further, until every worker knows that its webhook is active; the job then waits for that time.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            sent: A JSON-like object: `since`, `until`, and perhaps `status`, `source` and `rate`.
            by: Who asks for it.

        Raises:
            InvalidInputError: It names every wrong field; no job is made.
            NotFoundError: There is no such webhook in this workspace.
            ConflictError: The webhook is not active, or `MAX_UNFINISHED` jobs wait or run already.
            UnavailableError: The store is out of reach.
        """
        wanted = read_input(ReplayInput, sent)
        now_ms = self._clock.now_ms()
        since_ms, until_ms = parse_rfc3339(wanted.since), parse_rfc3339(wanted.until)
        if since_ms >= now_ms:
            raise InvalidInputError({"since": "is not in the past; send an earlier time"})
        if until_ms <= since_ms:
            raise InvalidInputError({"until": "is not after since; send a later time"})
        source = ReplaySource(wanted.source)
        if source is ReplaySource.EVENTS and wanted.status is not None:
            raise InvalidInputError({"status": "events have no status; leave it out, or leave source out"})
        active_webhook(await self._webhooks.get(workspace_id, webhook_id))
        job = ReplayJob(
            id=new_run_id(now_ms, self._draw(CHANCE_BYTES)),
            workspace_id=workspace_id,
            subscription_id=webhook_id,
            since_ms=since_ms,
            until_ms=min(until_ms, now_ms + KNOWN_AFTER_MS if source is ReplaySource.EVENTS else now_ms),
            wanted=None if wanted.status is None else DeliveryStatus(wanted.status),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            source=source,
            rate=wanted.rate,
        )
        return await self._start(job, {"status": wanted.status}, by)

    async def create_of_failed(
        self, workspace_id: str, wanted: FailedFilter, rate: float | None, *, by: Actor = COMMAND_LINE
    ) -> ReplayJob:
        """Make a job that sends a workspace's failed deliveries again, as far as nobody handled them.

        Those whose webhook is not active when their turn comes stay what they are.

        Args:
            workspace_id: The tenant.
            wanted: Which ones; an `until_ms` in the future counts as now.
            rate: Deliveries a second, at most; None: as fast as workers do it.
            by: Who asks for it.

        Raises:
            InvalidInputError: The time begins in the future; no job is made.
            ConflictError: The webhook is not there or not active, or `MAX_UNFINISHED` jobs wait or run already.
            UnavailableError: The store is out of reach.
        """
        now_ms = self._clock.now_ms()
        since_ms = 0 if wanted.since_ms is None else wanted.since_ms
        if since_ms >= now_ms:
            raise InvalidInputError({"since": "is not in the past; send an earlier time"})
        if wanted.subscription_id is not None:
            webhook = await self._webhooks.get(workspace_id, wanted.subscription_id)
            if webhook is None:
                raise ConflictError(
                    "subscription is no webhook of this workspace, or was deleted, so nothing would be sent; "
                    "GET /v1/webhooks lists those there are"
                )
            active_webhook(webhook)
        job = ReplayJob(
            id=new_run_id(now_ms, self._draw(CHANCE_BYTES)),
            workspace_id=workspace_id,
            subscription_id=wanted.subscription_id or "",
            since_ms=since_ms,
            until_ms=now_ms if wanted.until_ms is None else min(wanted.until_ms, now_ms),
            wanted=DeliveryStatus.FAILED,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            source=ReplaySource.DEAD_LETTERS,
            rate=rate,
            failed=replace(wanted, subscription_id=None, since_ms=None, until_ms=None),
        )
        told = {"type": wanted.event_type, "reason": wanted.reason, "response_code": wanted.response_code}
        ids = None if wanted.delivery_ids is None else list(wanted.delivery_ids)
        return await self._start(job, {**told, "delivery_ids": ids}, by)

    async def _start(self, job: ReplayJob, told: Mapping[str, Any], by: Actor) -> ReplayJob:
        if not await self._store.insert(job, at_most=MAX_UNFINISHED):
            raise ConflictError(
                f"{MAX_UNFINISHED} replays of this workspace wait or run already; wait for one to end, or cancel one"
            )
        told = {
            "webhook_id": job.subscription_id or None,
            "since": rfc3339(job.since_ms),
            "until": rfc3339(job.until_ms),
            "source": job.source.value,
            "rate": job.rate,
            **told,
        }
        changes = {name: (None, value) for name, value in told.items() if value is not None}
        await self._note(by, "replay.create", job, changes)
        return job

    async def get(self, workspace_id: str, replay_id: str) -> ReplayJob:
        """Return a job.

        Raises:
            NotFoundError: There is none of this id in this workspace.
            UnavailableError: The store is out of reach.
        """
        job = await self._store.get(workspace_id, replay_id)
        if job is None:
            raise NotFoundError("there is no such replay in this workspace; GET /v1/replays lists those there are")
        return job

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ReplayJob]:
        """Return one page of jobs, newest first.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: The store is out of reach.
        """
        return await self._store.page(workspace_id, cursor, limit)

    async def cancel(self, workspace_id: str, replay_id: str, *, by: Actor = COMMAND_LINE) -> ReplayJob:
        """End a job; what it produced before still goes out.

        Args:
            workspace_id: The tenant.
            replay_id: `rpl_…`.
            by: Who ends it.

        Raises:
            NotFoundError: There is none of this id in this workspace.
            ConflictError: It has ended already.
            UnavailableError: The store is out of reach.
        """
        job = await self._store.cancel(workspace_id, replay_id, self._clock.now_ms())
        if job is None:
            known = await self.get(workspace_id, replay_id)
            raise ConflictError(f"the replay is {known.status} already; there is nothing to cancel")
        await self._note(by, "replay.cancel", job, {})
        return job

    async def _note(self, by: Actor, action: str, job: ReplayJob, changes: Mapping[str, tuple[Any, Any]]) -> None:
        if self._audit is not None:
            await self._audit.note(job.workspace_id, by, action, job.id, changes)
