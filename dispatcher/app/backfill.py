"""Backfills that an operator asks for: a job of any workspace, made, looked at, ended; workers go through it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.core.errors import ConflictError, NotFoundError
from dispatcher.core.model import Status
from dispatcher.core.reruns import ReplayJob, ReplaySource
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.audit import Audit
from dispatcher.operations.replays import Replays
from dispatcher.operations.times import rfc3339
from dispatcher.settings import Settings


class Backfills:
    """Makes, shows and ends backfills of whichever workspace.

    Args:
        jobs: Where jobs are kept.
        webhooks: Where webhooks are kept.
        replays: The same jobs, as one workspace sees them.
        now_ms: When this begins, unix milliseconds.
    """

    def __init__(self, jobs: MongoReplays, webhooks: MongoWebhooks, replays: Replays, now_ms: int) -> None:
        self._jobs = jobs
        self._webhooks = webhooks
        self._replays = replays
        self._now_ms = now_ms

    async def make(self, webhook_id: str, since: str, until: str | None, rate: float | None) -> ReplayJob:
        """Make a job that sends a webhook the events of a time that it never got.

        Args:
            webhook_id: `wh_…`.
            since: The first time that counts, RFC 3339.
            until: The first that doesn't; None: now.
            rate: Deliveries a second, at most; None: as fast as workers do it.

        Raises:
            InvalidInputError: It names every wrong field; no job is made.
            NotFoundError: There is no such webhook.
            ConflictError: The webhook is not active, or too many jobs of its workspace wait or run already.
            UnavailableError: MongoDB is out of reach.
        """
        known = await self._webhooks.find(webhook_id)
        if known is None:
            raise NotFoundError(f"there is no webhook {webhook_id}; give the id of one with --subscription, wh_…")
        sent = {"since": since, "until": until or rfc3339(self._now_ms), "source": ReplaySource.EVENTS.value}
        webhook = await self._webhooks.get(known.workspace_id, webhook_id)
        if webhook is not None and webhook.subscription.status == Status.DISABLED and webhook.disabled_at_ms:
            raise ConflictError(
                f"the webhook is disabled ({webhook.disabled_reason}), so nothing would be sent; set its status to "
                "active first, then send what it missed since with: "
                f"dispatcher backfill --subscription {webhook_id} --since {rfc3339(webhook.disabled_at_ms)}"
            )
        return await self._replays.create(known.workspace_id, webhook_id, sent | ({"rate": rate} if rate else {}))

    async def find(self, replay_id: str) -> ReplayJob:
        """Return a job as it is now.

        Raises:
            NotFoundError: There is none of this id.
            UnavailableError: MongoDB is out of reach.
        """
        job = await self._jobs.find(replay_id)
        if job is None:
            raise NotFoundError(f"there is no replay {replay_id}; finished ones are kept for 90 days")
        return job

    async def cancel(self, replay_id: str) -> ReplayJob:
        """End a job; what it produced before still goes out.

        Raises:
            NotFoundError: There is none of this id.
            ConflictError: It has ended already.
            UnavailableError: MongoDB is out of reach.
        """
        job = await self.find(replay_id)
        return await self._replays.cancel(job.workspace_id, job.id)


@asynccontextmanager
async def open_backfills(settings: Settings) -> AsyncIterator[Backfills]:
    """Open the jobs; raises what `mongo_connection` raises."""
    async with mongo_connection(settings) as connection:
        clock = SystemClock()
        jobs, webhooks = MongoReplays(connection.replays), MongoWebhooks(connection.webhooks)
        audit = Audit(MongoAudit(connection.audit), clock, draw)
        yield Backfills(jobs, webhooks, Replays(jobs, webhooks, clock, draw, audit=audit), clock.now_ms())
