"""The calls that act on one webhook: send it a test event, rotate its secret, redeliver to it."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from dispatcher.api.answers import Answer, Time, WarningAnswer, json_answer, one_of
from dispatcher.api.bodies import read_optional_object
from dispatcher.api.preconditions import etag_of, read_if_match
from dispatcher.api.routes import Route
from dispatcher.operations.audit import actor_of
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.rotation import RotatedSecret, Rotation, SecretRotation
from dispatcher.operations.test_events import EventTestInput, EventTestResult, EventTests
from dispatcher.operations.times import rfc3339
from dispatcher.ports import ApiKey


class EventTestAnswer(Answer):
    """What came of a test event; its delivery stands in the log, marked as a test."""

    id: str = Field(description="the event's id, evt_test_…")
    status: Annotated[str, one_of("delivered", "failed")]
    response_code: int | None = Field(description="null where no response came")
    response_body: str = Field(description="its first 4 KiB as text; what is no UTF-8 is replaced")
    error: str = Field("", description="what went wrong; left out where nothing did", exclude_if=lambda text: not text)


class RotatedSecretAnswer(Answer):
    """A webhook's new secret."""

    id: str
    secret: str = Field(description="shown this once", repr=False)
    overlap_ends_at: Time | None = Field(description="until when the secret before it signs too; null: it has ended")
    warnings: list[WarningAnswer]


class RedeliveryAnswer(Answer):
    """A delivery that waits to be sent again."""

    id: str = Field(description="the delivery's id, the same as before")
    status: Annotated[str, one_of("pending")]
    replay_id: str = Field(description="the log shows its new attempts under this id")


class ActionCalls:
    """The calls that act on a webhook."""

    def __init__(self, tests: EventTests, rotation: SecretRotation, redeliveries: Redeliveries) -> None:
        self._tests = tests
        self._rotation = rotation
        self._redeliveries = redeliveries

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "POST",
                "/webhooks/{id}/test",
                "write",
                self.test,
                operation="testWebhook",
                body=EventTestInput,
                body_optional=True,
                answer=EventTestAnswer,
            ),
            Route(
                "POST",
                "/webhooks/{id}/rotate-secret",
                "write",
                self.rotate,
                operation="rotateSecret",
                body=Rotation,
                body_optional=True,
                answer=RotatedSecretAnswer,
                etag=True,
                if_match=True,
                problems=(409, 412),
            ),
            Route(
                "POST",
                "/webhooks/{id}/deliveries/{delivery_id}/redeliver",
                "write",
                self.redeliver,
                operation="redeliver",
                answer=RedeliveryAnswer,
                status=202,
                location=True,
                problems=(409, 410),
            ),
        )

    async def test(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Send an event type's sample now; 200 whatever the endpoint says."""
        sent = await read_optional_object(request)
        result = await self._tests.send(caller.workspace_id, request.match_info["id"], sent, by=actor_of(caller))
        return json_answer(event_test_answer(result))

    async def rotate(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Rotate the secret; the answer is the only one that shows it."""
        only = read_if_match(request)
        sent = await read_optional_object(request)
        rotated = await self._rotation.rotate(
            caller.workspace_id, request.match_info["id"], sent, only=only, by=actor_of(caller)
        )
        return json_answer(rotated_secret_answer(rotated), etag=etag_of(rotated.webhook.subscription.revision))

    async def redeliver(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Send a logged delivery again."""
        matched = request.match_info
        started = await self._redeliveries.redeliver(
            caller.workspace_id, matched["id"], matched["delivery_id"], by=actor_of(caller)
        )
        answer = RedeliveryAnswer(id=started.delivery_id, status="pending", replay_id=started.replay_id)
        return json_answer(answer, status=202, location=request.path.removesuffix("/redeliver"))


def event_test_answer(result: EventTestResult) -> EventTestAnswer:
    """Show what came of a test event."""
    return EventTestAnswer(
        id=result.event_id,
        status=result.status,
        response_code=result.response_code or None,
        response_body=result.response_body.decode("utf-8", "replace"),
        error=result.error,
    )


def rotated_secret_answer(rotated: RotatedSecret) -> RotatedSecretAnswer:
    """Show a new secret."""
    ends_at_ms = rotated.overlap_ends_at_ms
    return RotatedSecretAnswer(
        id=rotated.webhook.subscription.id,
        secret=rotated.secret,
        overlap_ends_at=None if ends_at_ms is None else rfc3339(ends_at_ms),
        warnings=[WarningAnswer(field=warned.field, message=warned.message) for warned in rotated.warnings],
    )
