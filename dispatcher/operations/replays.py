"""Send the logged deliveries of a time again, as a job that workers go through."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.reruns import CHANCE_BYTES, ReplayJob, new_run_id
from dispatcher.operations.identifiers import Draw
from dispatcher.operations.inputs import Input, read_input
from dispatcher.operations.redelivery import active_webhook
from dispatcher.operations.times import parse_rfc3339
from dispatcher.ports import Clock, Page, ReplayStore, WebhookStore

MAX_UNFINISHED = 10
"""As many jobs of one workspace may wait or run: the others wait for them."""

_STATUSES = ", ".join(DeliveryStatus)
_UNSETTABLE = {
    "source": "replaying from the source topics isn't available yet; leave it out to replay logged deliveries"
}


def _time(value: str) -> str:
    parse_rfc3339(value)
    return value


def _status(value: str) -> str:
    if value not in set(DeliveryStatus):
        raise ValueError(f"send one of {_STATUSES}, or leave it out for all that reached an end")
    return value


Time = Annotated[str, AfterValidator(_time)]


class ReplayInput(Input):
    """What a replay takes."""

    since: Time = Field(description="an RFC 3339 time, such as 2026-01-15T10:30:00Z: the first that counts")
    until: Time = Field(description="an RFC 3339 time, such as 2026-01-15T10:30:00Z: the first that doesn't count")
    status: Annotated[str, AfterValidator(_status)] | None = Field(
        None, description=f"one of {_STATUSES}, or leave it out for all that reached an end"
    )


class Replays:
    """The replay jobs of all workspaces; each call sees one workspace and nothing else.

    Args:
        store: Where jobs are kept; workers take them from there.
        webhooks: Where webhooks are kept.
        clock: Time.
        draw: Random bytes.
    """

    def __init__(self, store: ReplayStore, webhooks: WebhookStore, clock: Clock, draw: Draw) -> None:
        self._store = store
        self._webhooks = webhooks
        self._clock = clock
        self._draw = draw

    async def create(self, workspace_id: str, webhook_id: str, sent: Any) -> ReplayJob:
        """Make a job that sends the deliveries created from `since` to before `until` again.

        An `until` in the future counts as now: what is still to come is delivered anyway.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            sent: A JSON-like object: `since`, `until`, and perhaps `status`.

        Raises:
            InvalidInputError: It names every wrong field; no job is made.
            NotFoundError: There is no such webhook in this workspace.
            ConflictError: The webhook is not active, or `MAX_UNFINISHED` jobs wait or run already.
            UnavailableError: The store is out of reach.
        """
        wanted = read_input(ReplayInput, sent, unsettable=_UNSETTABLE)
        now_ms = self._clock.now_ms()
        since_ms, until_ms = parse_rfc3339(wanted.since), parse_rfc3339(wanted.until)
        if since_ms >= now_ms:
            raise InvalidInputError({"since": "is not in the past; send an earlier time"})
        if until_ms <= since_ms:
            raise InvalidInputError({"until": "is not after since; send a later time"})
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
        )
        await self._store.insert(job)
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

    async def cancel(self, workspace_id: str, replay_id: str) -> ReplayJob:
        """End a job; what it produced before still goes out.

        Raises:
            NotFoundError: There is none of this id in this workspace.
            ConflictError: It has ended already.
            UnavailableError: The store is out of reach.
        """
        job = await self._store.cancel(workspace_id, replay_id, self._clock.now_ms())
        if job is None:
            known = await self.get(workspace_id, replay_id)
            raise ConflictError(f"the replay is {known.status} already; there is nothing to cancel")
        return job
