"""Replay jobs in MongoDB: what their owners see, and the lease by which one worker at a time runs each.

Leases are measured by the server's clock (`$$NOW`), as those of the workers may differ.
"""

from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument

from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter
from dispatcher.core.reruns import UNFINISHED, ReplayCounts, ReplayJob, ReplaySource, ReplayStatus, SourceSpan
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.mongo.cursors import after, encode_cursor
from dispatcher.mongo.quotas import insert_within
from dispatcher.ports import Page

_NEWEST_FIRST = [("created_at", -1), ("_id", -1)]
_LONGEST_UNTOUCHED_FIRST = [("updated_at", 1), ("_id", 1)]
_UNFINISHED = {"$in": [status.value for status in UNFINISHED]}
_RUNNING = ReplayStatus.RUNNING.value


class MongoReplays:
    """Keeps replay jobs; implements `dispatcher.ports.ReplayStore` and `ReplayLeases`.

    Every method raises `UnavailableError` where MongoDB is out of reach.

    Args:
        replays: The collection; majority reads and writes.
    """

    def __init__(self, replays: Collection) -> None:
        self._replays = replays

    async def insert(self, job: ReplayJob, *, at_most: int | None = None) -> bool:
        """Store a new job; False where `at_most` of its workspace wait or run already."""
        document = {
            "_id": job.id,
            "workspace_id": job.workspace_id,
            "subscription_id": job.subscription_id,
            "since": DatetimeMS(job.since_ms),
            "until": DatetimeMS(job.until_ms),
            "wanted": None if job.wanted is None else job.wanted.value,
            "source": job.source.value,
            "rate": job.rate,
            "failed": _stored_filter(job.failed),
            "status": job.status.value,
            "created_at": DatetimeMS(job.created_at_ms),
            "updated_at": DatetimeMS(job.updated_at_ms),
            "finished_at": None,
            "owner": None,
            "lease_until": None,
            **_progress(job),
        }
        with unavailable_errors():
            return await insert_within(self._replays, document, at_most, {"status": _UNFINISHED})

    async def get(self, workspace_id: str, replay_id: str) -> ReplayJob | None:
        """Return a job of this workspace, or None."""
        with unavailable_errors():
            stored = await self._replays.find_one({"_id": replay_id, "workspace_id": workspace_id})
        return None if stored is None else _job_of(stored)

    async def find(self, replay_id: str) -> ReplayJob | None:
        """Return a job of whichever workspace, or None."""
        with unavailable_errors():
            stored = await self._replays.find_one({"_id": replay_id})
        return None if stored is None else _job_of(stored)

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ReplayJob]:
        """Return one page, newest first.

        Raises:
            InvalidInputError: The cursor is none of ours.
        """
        query: Document = {"workspace_id": workspace_id}
        if cursor is not None:
            query |= after(cursor, time_field="created_at")
        with unavailable_errors():
            stored = await self._replays.find(query).sort(_NEWEST_FIRST).limit(limit + 1).to_list(length=None)
        rows = [_job_of(each) for each in stored[:limit]]
        more = len(stored) > limit
        return Page(rows, encode_cursor(rows[-1].created_at_ms, rows[-1].id) if more else None)

    async def cancel(self, workspace_id: str, replay_id: str, now_ms: int) -> ReplayJob | None:
        """Cancel a job that waits or runs and return it; None where there is none.

        Whoever runs it notices at its next checkpoint, and may still store what it counted.
        """
        where = {"_id": replay_id, "workspace_id": workspace_id, "status": _UNFINISHED}
        ended = {
            "status": ReplayStatus.CANCELLED.value,
            "updated_at": DatetimeMS(now_ms),
            "finished_at": DatetimeMS(now_ms),
        }
        with unavailable_errors():
            stored = await self._replays.find_one_and_update(
                where, {"$set": ended}, return_document=ReturnDocument.AFTER
            )
        return None if stored is None else _job_of(stored)

    async def take(self, owner: str, lease_ms: int) -> ReplayJob | None:
        """Take the job that was left alone for longest, of those that nobody holds or that `owner` holds already."""
        where = {
            "status": _UNFINISHED,
            "$or": [{"owner": None}, {"owner": owner}, {"$expr": {"$lt": ["$lease_until", "$$NOW"]}}],
        }
        taken = [{"$set": {"status": _RUNNING, "owner": {"$literal": owner}, **_lease(lease_ms)}}]
        with unavailable_errors():
            stored = await self._replays.find_one_and_update(
                where, taken, sort=_LONGEST_UNTOUCHED_FIRST, return_document=ReturnDocument.AFTER
            )
        return None if stored is None else _job_of(stored)

    async def renew(self, replay_id: str, owner: str, lease_ms: int) -> bool:
        """Hold a job for longer; False where it isn't the owner's to run any more."""
        where = {"_id": replay_id, "owner": owner, "status": _RUNNING}
        with unavailable_errors():
            result = await self._replays.update_one(where, [{"$set": _lease(lease_ms)}])
        return bool(result.matched_count)

    async def checkpoint(self, job: ReplayJob, owner: str, lease_ms: int) -> bool:
        """Store how far a job is, and hold it for longer.

        Returns:
            False where it isn't the owner's to run any more; where that is because it was cancelled, its counts are
            stored all the same.
        """
        return await self._store(job, owner, {"updated_at": "$$NOW", **_lease(lease_ms)})

    async def finish(self, job: ReplayJob, owner: str) -> bool:
        """Store how a job ended, with its status; returns what `checkpoint` returns."""
        ended = {"status": job.status.value, "updated_at": "$$NOW", "finished_at": "$$NOW", "owner": None}
        return await self._store(job, owner, ended)

    async def release(self, owner: str) -> None:
        """Hold nothing any more, so that others can go on at once."""
        with unavailable_errors():
            await self._replays.update_many({"owner": owner}, {"$set": {"owner": None}})

    async def _store(self, job: ReplayJob, owner: str, changes: Document) -> bool:
        progress = {name: {"$literal": value} for name, value in _progress(job).items()}
        where = {"_id": job.id, "owner": owner}
        with unavailable_errors():
            result = await self._replays.update_one(where | {"status": _RUNNING}, [{"$set": progress | changes}])
            if not result.matched_count:
                counts = {name: progress[name] for name in ("selected", "produced", "gone", "skipped")}
                await self._replays.update_one(where, [{"$set": counts}])
        return bool(result.matched_count)


def _lease(lease_ms: int) -> Document:
    return {"lease_until": {"$add": ["$$NOW", lease_ms]}}


def _progress(job: ReplayJob) -> Document:
    at_ms, delivery_id = job.cursor or (None, None)
    return {
        "error": job.error,
        "selected": job.selected,
        "produced": job.counts.produced,
        "gone": job.counts.gone,
        "skipped": job.counts.skipped,
        "cursor_at": None if at_ms is None else DatetimeMS(at_ms),
        "cursor_id": delivery_id,
        "in_hand": list(job.in_hand),
        "spans": [[span.topic, span.partition, span.position, span.end] for span in job.spans],
    }


def _job_of(stored: Document) -> ReplayJob:
    finished_at: Any = stored["finished_at"]
    return ReplayJob(
        id=stored["_id"],
        workspace_id=stored["workspace_id"],
        subscription_id=stored["subscription_id"],
        since_ms=int(stored["since"]),
        until_ms=int(stored["until"]),
        wanted=None if stored["wanted"] is None else DeliveryStatus(stored["wanted"]),
        created_at_ms=int(stored["created_at"]),
        updated_at_ms=int(stored["updated_at"]),
        status=ReplayStatus(stored["status"]),
        error=stored["error"],
        selected=stored["selected"],
        counts=ReplayCounts(stored["produced"], stored["gone"], stored["skipped"]),
        cursor=None if stored["cursor_at"] is None else (int(stored["cursor_at"]), stored["cursor_id"]),
        in_hand=tuple(stored["in_hand"]),
        finished_at_ms=None if finished_at is None else int(finished_at),
        # Jobs that an earlier version stored have none of these.
        source=ReplaySource(stored.get("source", ReplaySource.DELIVERIES)),
        spans=tuple(SourceSpan(*span) for span in stored.get("spans", ())),
        rate=stored.get("rate"),
        failed=_filter_of(stored.get("failed", {})),
    )


def _stored_filter(failed: FailedFilter) -> Document:
    """Write down what a job of dead letters is about, beside its webhook and its times."""
    ids = failed.delivery_ids
    return {
        "event_type": failed.event_type,
        "reason": failed.reason,
        "response_code": failed.response_code,
        "delivery_ids": None if ids is None else list(ids),
    }


def _filter_of(stored: Document) -> FailedFilter:
    ids = stored.get("delivery_ids")
    return FailedFilter(
        event_type=stored.get("event_type"),
        reason=stored.get("reason"),
        response_code=stored.get("response_code"),
        delivery_ids=None if ids is None else tuple(ids),
    )
