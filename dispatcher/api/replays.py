"""The calls about replay jobs."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from dispatcher.api.answers import Answer, Time, json_answer, one_of
from dispatcher.api.bodies import read_object
from dispatcher.api.queries import PAGING, read_page
from dispatcher.api.routes import Route
from dispatcher.core.reruns import ReplayJob, ReplaySource, ReplayStatus
from dispatcher.operations.audit import actor_of
from dispatcher.operations.replays import ReplayInput, Replays
from dispatcher.operations.times import rfc3339
from dispatcher.ports import ApiKey


class ReplayCountsAnswer(Answer):
    """How far a replay is: what was produced, is gone or was skipped is done with."""

    selected: int | None = Field(
        description="deliveries found at its start, or offsets on the source topics; null before"
    )
    produced: int = Field(description="deliveries on their way to the endpoint")
    gone: int = Field(description="their events are kept no more")
    skipped: int = Field(
        description="under way anyway, asked for again since, or (of dead letters) their webhook is not active; of the "
        "source topics: not for the webhook, or in its delivery log already"
    )


class ReplaySelectionAnswer(Answer):
    """Which dead letters a replay is about, beside webhook and times; null asks for nothing in particular."""

    type: str | None
    reason: str | None
    response_code: str | None
    delivery_ids: list[str] | None


class ReplayAnswer(Answer):
    """A replay job."""

    id: str
    webhook_id: str | None = Field(description="null: those of the whole workspace, of dead letters only")
    status: Annotated[str, one_of(*ReplayStatus)]
    source: Annotated[str, one_of(*ReplaySource)] = Field(
        description="what it goes through: logged deliveries, the events of the source topics, or dead letters"
    )
    since: Time
    until: Time
    delivery_status: str | None = Field(description="only deliveries in this status; null: all that reached an end")
    dead_letters: ReplaySelectionAnswer | None = Field(description="which ones; null where it isn't about them")
    rate: float | None = Field(description="deliveries a second, at most; null: as fast as the service does it")
    counts: ReplayCountsAnswer
    created_at: Time
    updated_at: Time
    finished_at: Time | None
    error: str | None = Field(description="why it failed")


class ReplayPageAnswer(Answer):
    """A page of replay jobs, newest first."""

    data: list[ReplayAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


class ReplayCalls:
    """The calls about replay jobs."""

    def __init__(self, replays: Replays) -> None:
        self._replays = replays

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "POST",
                "/webhooks/{id}/replay",
                "write",
                self.create,
                operation="createReplay",
                body=ReplayInput,
                answer=ReplayAnswer,
                status=202,
                location=True,
                problems=(409,),
            ),
            Route(
                "GET",
                "/replays",
                "read",
                self.page,
                operation="listReplays",
                query=PAGING,
                answer=ReplayPageAnswer,
            ),
            Route("GET", "/replays/{id}", "read", self.get, operation="getReplay", answer=ReplayAnswer),
            Route(
                "POST",
                "/replays/{id}/cancel",
                "write",
                self.cancel,
                operation="cancelReplay",
                answer=ReplayAnswer,
                problems=(409,),
            ),
        )

    async def create(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Make a replay job.

        A worker goes through it at a bounded rate; another goes on where that one ends or is killed, and at most the
        100 deliveries that it had in hand come twice. With the source events, what is being delivered for the first
        time just then may come twice as well; an until that is some seconds past avoids that.
        """
        webhook_id = request.match_info["id"]
        sent = await read_object(request)
        job = await self._replays.create(caller.workspace_id, webhook_id, sent, by=actor_of(caller))
        prefix = request.path.removesuffix(f"/webhooks/{webhook_id}/replay")
        return json_answer(replay_answer(job), status=202, location=f"{prefix}/replays/{job.id}")

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List replay jobs, newest first."""
        cursor, limit = read_page(request)
        page = await self._replays.page(caller.workspace_id, cursor, limit)
        data = [replay_answer(job) for job in page.rows]
        return json_answer(ReplayPageAnswer(data=data, next_cursor=page.next_cursor))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a replay job."""
        return json_answer(replay_answer(await self._replays.get(caller.workspace_id, request.match_info["id"])))

    async def cancel(self, request: web.Request, caller: ApiKey) -> web.Response:
        """End a replay job; what it produced before still goes out."""
        replay_id = request.match_info["id"]
        job = await self._replays.cancel(caller.workspace_id, replay_id, by=actor_of(caller))
        return json_answer(replay_answer(job))


def replay_answer(job: ReplayJob) -> ReplayAnswer:
    """Show a replay job."""
    return ReplayAnswer(
        id=job.id,
        webhook_id=job.subscription_id or None,
        status=job.status,
        source=job.source,
        since=rfc3339(job.since_ms),
        until=rfc3339(job.until_ms),
        delivery_status=job.wanted,
        dead_letters=_selection(job),
        rate=job.rate,
        counts=ReplayCountsAnswer(
            selected=job.selected,
            produced=job.counts.produced,
            gone=job.counts.gone,
            skipped=job.counts.skipped,
        ),
        created_at=rfc3339(job.created_at_ms),
        updated_at=rfc3339(job.updated_at_ms),
        finished_at=None if job.finished_at_ms is None else rfc3339(job.finished_at_ms),
        error=job.error or None,
    )


def _selection(job: ReplayJob) -> ReplaySelectionAnswer | None:
    if job.source is not ReplaySource.DEAD_LETTERS:
        return None
    ids = job.failed.delivery_ids
    return ReplaySelectionAnswer(
        type=job.failed.event_type,
        reason=job.failed.reason,
        response_code=job.failed.response_code,
        delivery_ids=None if ids is None else list(ids),
    )
