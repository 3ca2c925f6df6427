"""The calls about replay jobs."""

from aiohttp import web
from pydantic import Field

from dispatcher.api.answers import Answer, json_answer
from dispatcher.api.bodies import read_object
from dispatcher.api.queries import read_paging, read_query
from dispatcher.api.routes import Route
from dispatcher.core.reruns import ReplayJob
from dispatcher.operations.replays import ReplayInput, Replays
from dispatcher.operations.times import rfc3339
from dispatcher.ports import ApiKey


class ReplayCountsAnswer(Answer):
    """How far a replay is: what was produced, is gone or was skipped is done with."""

    selected: int | None = Field(description="deliveries found at its start; null before")
    produced: int = Field(description="on their way to the endpoint again")
    gone: int = Field(description="their events are kept no more")
    skipped: int = Field(description="under way anyway, or asked for again since")


class ReplayAnswer(Answer):
    """A replay job."""

    id: str
    webhook_id: str
    status: str = Field(description="pending, running, done, cancelled or failed")
    since: str
    until: str
    delivery_status: str | None = Field(description="only deliveries in this status; null: all that reached an end")
    counts: ReplayCountsAnswer
    created_at: str
    updated_at: str
    finished_at: str | None
    error: str | None = Field(description="why it failed")


class ReplayPageAnswer(Answer):
    """A page of replay jobs, newest first."""

    data: list[ReplayAnswer]
    next_cursor: str | None


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
            Route("GET", "/replays", "read", self.page, operation="listReplays", answer=ReplayPageAnswer),
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
        """Make a replay job."""
        webhook_id = request.match_info["id"]
        job = await self._replays.create(caller.workspace_id, webhook_id, await read_object(request))
        prefix = request.path.removesuffix(f"/webhooks/{webhook_id}/replay")
        return json_answer(replay_answer(job), status=202, location=f"{prefix}/replays/{job.id}")

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List replay jobs, newest first."""
        cursor, limit = read_paging(read_query(request))
        page = await self._replays.page(caller.workspace_id, cursor, limit)
        data = [replay_answer(job) for job in page.rows]
        return json_answer(ReplayPageAnswer(data=data, next_cursor=page.next_cursor))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a replay job."""
        return json_answer(replay_answer(await self._replays.get(caller.workspace_id, request.match_info["id"])))

    async def cancel(self, request: web.Request, caller: ApiKey) -> web.Response:
        """End a replay job; what it produced before still goes out."""
        return json_answer(replay_answer(await self._replays.cancel(caller.workspace_id, request.match_info["id"])))


def replay_answer(job: ReplayJob) -> ReplayAnswer:
    """Show a replay job."""
    return ReplayAnswer(
        id=job.id,
        webhook_id=job.subscription_id,
        status=job.status,
        since=rfc3339(job.since_ms),
        until=rfc3339(job.until_ms),
        delivery_status=job.wanted,
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
