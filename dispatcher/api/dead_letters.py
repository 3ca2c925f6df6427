"""The calls about dead letters: what of a workspace failed for good, sending it again, and being done with it."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import Field

from dispatcher.api.answers import (
    Answer,
    DeliveryAnswer,
    DeliveryDetailAnswer,
    Time,
    delivery_answer,
    delivery_detail_answer,
    fields_of,
    json_answer,
    time_of,
)
from dispatcher.api.bodies import read_object
from dispatcher.api.queries import PAGING, SPAN, read_filters, read_listing
from dispatcher.api.replays import ReplayAnswer, replay_answer
from dispatcher.api.routes import Parameter, Route
from dispatcher.core.dead_letters import NO_ANSWER
from dispatcher.core.delivery_log import LoggedDelivery
from dispatcher.core.matching import TYPE
from dispatcher.core.model import DeadLetterReason
from dispatcher.operations.audit import actor_of
from dispatcher.operations.failed_deliveries import (
    FILTERS,
    MAX_ID_LENGTH,
    RESPONSE_CODE_PATTERN,
    DeadLetterReplay,
    DeadLetters,
    DeadLetterSelection,
    read_failed_filter,
)
from dispatcher.operations.times import rfc3339
from dispatcher.ports import ApiKey, FailedCount, FailedSummary

_CHOICE = (
    Parameter(
        "subscription",
        "only deliveries of the webhook with this id",
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    ),
    Parameter("type", "only deliveries of this event type", {"type": "string", "pattern": f"^{TYPE.pattern}$"}),
    Parameter(
        "reason", "only deliveries that failed for this reason", {"type": "string", "enum": list(DeadLetterReason)}
    ),
    Parameter(
        "response_code",
        "only deliveries whose last attempt got this status code (503), one of this class (5xx), or none",
        {"type": "string", "pattern": RESPONSE_CODE_PATTERN},
    ),
    *SPAN,
)


class DeadLetterAnswer(DeliveryAnswer):
    """A failed delivery in the workspace's list."""

    webhook_id: str = Field(description="may be of a webhook that was deleted since")


class DeadLetterPageAnswer(Answer):
    """A page of failed deliveries, newest first."""

    data: list[DeadLetterAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


class DeadLetterDetailAnswer(DeliveryDetailAnswer):
    """A failed delivery with its attempts, oldest first."""

    webhook_id: str = Field(description="may be of a webhook that was deleted since")
    handled_at: Time | None = Field(description="when it was marked as handled; null: it wasn't")


class CountAnswer(Answer):
    """How many dead letters have a value in common."""

    value: str = Field(description="what the filter of this name takes; of hours, their beginning")
    count: int


class DeadLetterSummaryAnswer(Answer):
    """Dead letters, counted; of each kind the 100 commonest values, of hours the 100 latest."""

    total: int
    complete: bool = Field(description="false where there are more: the newest 100000 are counted")
    by_reason: list[CountAnswer]
    by_subscription: list[CountAnswer]
    by_type: list[CountAnswer]
    by_response_code: list[CountAnswer] = Field(description="of the last attempt; none: no response came")
    by_hour: list[CountAnswer] = Field(description="by the hour of their creation, the latest first")


class PurgeAnswer(Answer):
    """What a purge did."""

    handled: int = Field(description="so many were marked as handled")
    more: bool = Field(description="whether some are left, as one call marks 10000 at most: send it again")


class DeadLetterCalls:
    """The calls about dead letters."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "GET",
                "/dead-letters",
                "read",
                self.page,
                operation="listDeadLetters",
                query=(*_CHOICE, *PAGING),
                answer=DeadLetterPageAnswer,
            ),
            Route(
                "GET",
                "/dead-letters/summary",
                "read",
                self.summary,
                operation="countDeadLetters",
                query=_CHOICE,
                answer=DeadLetterSummaryAnswer,
            ),
            Route(
                "POST",
                "/dead-letters/replay",
                "write",
                self.replay,
                operation="replayDeadLetters",
                body=DeadLetterReplay,
                answer=ReplayAnswer,
                status=202,
                location=True,
            ),
            Route(
                "POST",
                "/dead-letters/purge",
                "write",
                self.purge,
                operation="purgeDeadLetters",
                body=DeadLetterSelection,
                answer=PurgeAnswer,
            ),
            Route(
                "GET",
                "/dead-letters/{delivery_id}",
                "read",
                self.get,
                operation="getDeadLetter",
                answer=DeadLetterDetailAnswer,
            ),
        )

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List the workspace's dead letters, newest first.

        These are its failed deliveries, of all its webhooks, that nobody has marked as handled. Times are those of
        their creation. Records that are no events belong to no workspace: the operator sees those.
        """
        wanted, cursor, limit = read_listing(request, FILTERS, read_failed_filter)
        page = await self._letters.page(caller.workspace_id, wanted, cursor, limit)
        data = [dead_letter_answer(delivery) for delivery in page.rows]
        return json_answer(DeadLetterPageAnswer(data=data, next_cursor=page.next_cursor))

    async def summary(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Count the workspace's dead letters.

        With the filters of a replay, it says how many would go out, and where to.
        """
        wanted = read_filters(request, FILTERS, read_failed_filter)
        return json_answer(summary_answer(await self._letters.summary(caller.workspace_id, wanted)))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a dead letter with every attempt, handled or not."""
        delivery = await self._letters.get(caller.workspace_id, request.match_info["delivery_id"])
        return json_answer(
            DeadLetterDetailAnswer(
                **fields_of(delivery_detail_answer(delivery)),
                webhook_id=delivery.subscription_id,
                handled_at=time_of(delivery.handled_at_ms),
            )
        )

    async def replay(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Send dead letters again, as a job.

        All that the fields say is true of those that go out; at least one field is needed. A dead letter whose webhook
        is not active when its turn comes stays where it is, and is counted as skipped.
        """
        job = await self._letters.replay(caller.workspace_id, await read_object(request), by=actor_of(caller))
        prefix = request.path.removesuffix("/dead-letters/replay")
        return json_answer(replay_answer(job), status=202, location=f"{prefix}/replays/{job.id}")

    async def purge(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Mark dead letters as handled.

        They leave the list, the counts and replays of dead letters, and stay in their webhook's delivery log; one that
        is sent again and fails again is back. All that the fields say is true of those that are marked; at least one
        field is needed.
        """
        handled = await self._letters.purge(caller.workspace_id, await read_object(request), by=actor_of(caller))
        return json_answer(PurgeAnswer(handled=handled.count, more=handled.more))


def dead_letter_answer(delivery: LoggedDelivery) -> DeadLetterAnswer:
    """Show a failed delivery and its webhook."""
    return DeadLetterAnswer(**fields_of(delivery_answer(delivery)), webhook_id=delivery.subscription_id)


def summary_answer(summary: FailedSummary) -> DeadLetterSummaryAnswer:
    """Show how many there are of what."""
    return DeadLetterSummaryAnswer(
        total=summary.total,
        complete=summary.complete,
        by_reason=_counts(summary.by_reason),
        by_subscription=_counts(summary.by_webhook),
        by_type=_counts(summary.by_type),
        by_response_code=[
            CountAnswer(value=str(each.value) if each.value else NO_ANSWER, count=each.count)
            for each in summary.by_response_code
        ],
        by_hour=[CountAnswer(value=rfc3339(each.value), count=each.count) for each in summary.by_hour_ms],
    )


def _counts(counted: Sequence[FailedCount[Any]]) -> list[CountAnswer]:
    return [CountAnswer(value=each.value, count=each.count) for each in counted]
