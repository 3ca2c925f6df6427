"""Send the logged deliveries of a time again, or events that a webhook never got, as a job that workers go through."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.reruns import CHANCE_BYTES, ReplayJob, ReplaySource, new_run_id
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.identifiers import Draw
from dispatcher.operations.inputs import Input, read_input
from dispatcher.operations.redelivery import active_webhook
from dispatcher.operations.times import parse_rfc3339, rfc3339
from dispatcher.ports import Actor, Clock, Page, ReplayStore, WebhookStore

MAX_UNFINISHED = 10
"""As many jobs of one workspace may wait or run: the others wait for them."""

_STATUSES = ", ".join(DeliveryStatus)
_SOURCES = " or ".join(ReplaySource)


def _time(value: str) -> str:
    parse_rfc3339(value)
    return value


def _status(value: str) -> str:
    if value not in set(DeliveryStatus):
        raise ValueError(f"send one of {_STATUSES}, or leave it out for all that reached an end")
    return value


def _source(value: str) -> str:
    if value not in set(ReplaySource):
        raise ValueError(f"send {_SOURCES}")
    return value


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_time)]


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
    source: Annotated[str, Field(json_schema_extra={"enum": list(ReplaySource)}), AfterValidator(_source)] = Field(
        ReplaySource.DELIVERIES.value,
        description="deliveries (the default) sends logged deliveries again; events reads the source topics again and "
        "sends what the webhook wants and never got: without status",
    )


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

        An `until` in the future counts as now: what is still to come is delivered anyway.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            sent: A JSON-like object: `since`, `until`, and perhaps `status` or `source`.
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
        if await self._store.count_unfinished(workspace_id) >= MAX_UNFINISHED:
            raise ConflictError(
                f"{MAX_UNFINISHED} replays of this workspace wait or run already; wait for one to end, or cancel one"
            )
        job = ReplayJob(
            id=new_run_id(now_ms, self._draw(CHANCE_BYTES)),
            workspace_id=workspace_id,
            subscription_id=webhook_id,
            since_ms=since_ms,
            until_ms=min(until_ms, now_ms),
            wanted=None if wanted.status is None else DeliveryStatus(wanted.status),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            source=source,
        )
        await self._store.insert(job)
        told = {
            "webhook_id": webhook_id,
            "since": rfc3339(job.since_ms),
            "until": rfc3339(job.until_ms),
            "status": wanted.status,
            "source": wanted.source,
        }
        await self._note(by, "replay.create", job, {name: (None, value) for name, value in told.items()})
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
