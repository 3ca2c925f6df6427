"""What the API answers: one model for each shape, filled from what the operations return."""

from collections.abc import Iterable
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from dispatcher.core.delivery_log import DeliveryStatus, LoggedAttempt, LoggedDelivery
from dispatcher.core.model import PayloadFormat, Status, Webhook
from dispatcher.core.payload import CLOUDEVENTS_CONTENT_TYPE
from dispatcher.core.reruns import ReplaySource
from dispatcher.operations.times import rfc3339
from dispatcher.operations.webhooks import BackfillOffer, ChangedWebhook, CreatedWebhook, Warned

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time as RFC 3339 text."""


def one_of(*values: str) -> Any:
    """Say in the document what a text may be; what is answered isn't held against it."""
    return Field(json_schema_extra={"enum": list(values)})


class Answer(BaseModel):
    """A JSON object that is answered."""

    model_config = ConfigDict(frozen=True)


class WarningAnswer(Answer):
    """Something that was accepted and is probably not meant."""

    field: str = Field(description="path of the field, such as events.0")
    message: str


class WebhookAnswer(Answer):
    """A webhook, without its secrets."""

    id: str
    name: str | None
    description: str | None
    url: str
    method: str
    content_type: str = Field(description="of the requests; application/cloudevents+json with that payload_format")
    events: list[str] = Field(description="the event types and patterns it wants")
    status: Annotated[str, one_of(*Status)] = Field(
        description="disabled is the dispatcher's doing: disabled_reason says why"
    )
    disabled_reason: str | None
    disabled_at: Time | None
    notification_type: str
    payload_format: Annotated[str, one_of(*PayloadFormat)]
    max_attempts: int = Field(description="the first attempt counts")
    headers: dict[str, str] = Field(description="static headers of the requests")
    api_key_set: bool = Field(description="whether an API key goes along in api_key_header; it is never shown")
    api_key_header: str
    client_certificate: str | None = Field(description="PEM chain that an https endpoint is shown where it asks")
    client_key_set: bool = Field(description="whether there is a key of client_certificate; it is never shown")
    timeout_seconds: int
    rate_limit: float | None = Field(description="deliveries per second; null: no limit")
    created_at: Time
    updated_at: Time


class BackfillOfferAnswer(Answer):
    """What a webhook missed while the dispatcher had it disabled, and the call that sends it: POST `body` to `path`."""

    since: Time = Field(description="when it was disabled")
    until: Time = Field(description="when every worker knows that it is active again")
    path: str = Field(description="of the call, from the server's root")
    body: dict[str, str] = Field(description="what to send there")


class ChangedWebhookAnswer(WebhookAnswer):
    """A webhook after a change."""

    warnings: list[WarningAnswer] = Field(description="what was accepted and is probably not meant")
    backfill: BackfillOfferAnswer | None = Field(
        description="what it missed, where this change has made a disabled webhook active again; nothing is sent "
        "unless you make the call"
    )


class CreatedWebhookAnswer(WebhookAnswer):
    """A new webhook, with its secret."""

    warnings: list[WarningAnswer] = Field(description="what was accepted and is probably not meant")
    secret: str = Field(description="shown this once", repr=False)


class WebhookPageAnswer(Answer):
    """A page of webhooks, newest first."""

    data: list[WebhookAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


class DeliveryAnswer(Answer):
    """One delivery in a list: the summary of its latest step."""

    id: str
    event_id: str
    event_type: str
    status: Annotated[str, one_of(*DeliveryStatus)]
    response_code: int | None = Field(description="null where no response came")
    response_time_ms: float | None = Field(description="null where no attempt was made")
    attempts_made: int
    created_at: Time
    updated_at: Time
    next_attempt_at: Time | None = Field(description="when a retrying one is sent again")
    error: str | None
    reason: str | None = Field(description="why it failed for good or was skipped")
    test: bool = Field(description="whether it was a test event")
    replay_id: str | None = Field(description="the replay that made its latest attempts")


class AttemptAnswer(Answer):
    """One attempt of a delivery."""

    attempt: int
    at: Time
    status: Annotated[str, one_of(*DeliveryStatus)] = Field(description="where the delivery stood after it")
    response_code: int | None
    response_time_ms: float
    response_body: str = Field(description="its first 4 KiB as text; what is no UTF-8 is replaced")
    error: str | None
    replay_id: str | None


class DeliveryDetailAnswer(DeliveryAnswer):
    """One delivery with its attempts, oldest first."""

    attempts: list[AttemptAnswer]


class DeliveryPageAnswer(Answer):
    """A page of deliveries, newest first."""

    data: list[DeliveryAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


class FieldProblem(Answer):
    """One wrong field."""

    field: str = Field(description="path of the field or name of the parameter, such as events.0")
    problem: str = Field(description="what is wrong with it, and what to send instead")


class Problem(Answer):
    """What is wrong and what to do, as RFC 9457 has it."""

    type: str = Field(description="about:blank: the status says it all")
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what is wrong and what to do")
    request_id: str = Field(description="also the header X-Request-Id")
    errors: list[FieldProblem] | SkipJsonSchema[None] = Field(None, description="every wrong field, where fields are")


def json_answer(
    answer: Answer, *, status: int = 200, location: str | None = None, etag: str | None = None
) -> web.Response:
    """Make the response: compact UTF-8 JSON that no cache keeps."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if location is not None:
        headers["Location"] = location
    if etag is not None:
        headers["ETag"] = etag
    return web.Response(status=status, body=answer.model_dump_json(by_alias=True).encode("utf-8"), headers=headers)


def webhook_answer(webhook: Webhook) -> WebhookAnswer:
    """Show a webhook."""
    subscription = webhook.subscription
    cloudevents = subscription.payload_format == PayloadFormat.CLOUDEVENTS
    return WebhookAnswer(
        id=subscription.id,
        name=webhook.name,
        description=webhook.description,
        url=webhook.url,
        method=subscription.method,
        content_type=CLOUDEVENTS_CONTENT_TYPE if cloudevents else subscription.content_type,
        events=list(subscription.events),
        status=subscription.status,
        disabled_reason=webhook.disabled_reason,
        disabled_at=time_of(webhook.disabled_at_ms),
        notification_type=webhook.notification_type,
        payload_format=subscription.payload_format,
        max_attempts=subscription.max_attempts,
        headers=dict(subscription.headers),
        api_key_set=subscription.api_key is not None,
        api_key_header=subscription.api_key_header,
        client_certificate=subscription.client_certificate,
        client_key_set=subscription.client_key is not None,
        timeout_seconds=subscription.timeout_seconds,
        rate_limit=subscription.rate_limit,
        created_at=rfc3339(webhook.created_at_ms),
        updated_at=rfc3339(webhook.updated_at_ms),
    )


def changed_webhook_answer(changed: ChangedWebhook, path: str) -> ChangedWebhookAnswer:
    """Show a webhook after a change.

    Args:
        changed: What the change made of it.
        path: Where the webhook is.
    """
    return ChangedWebhookAnswer(
        **fields_of(webhook_answer(changed.webhook)),
        warnings=_warnings(changed.warnings),
        backfill=None if changed.backfill is None else _offer(changed.backfill, path),
    )


def _offer(missed: BackfillOffer, path: str) -> BackfillOfferAnswer:
    since, until = rfc3339(missed.since_ms), rfc3339(missed.until_ms)
    body = {"since": since, "until": until, "source": ReplaySource.EVENTS.value}
    return BackfillOfferAnswer(since=since, until=until, path=f"{path}/replay", body=body)


def created_webhook_answer(created: CreatedWebhook) -> CreatedWebhookAnswer:
    """Show a new webhook and its secret."""
    return CreatedWebhookAnswer(
        **fields_of(webhook_answer(created.webhook)), warnings=_warnings(created.warnings), secret=created.secret
    )


def delivery_answer(delivery: LoggedDelivery) -> DeliveryAnswer:
    """Show a delivery without its attempts."""
    return DeliveryAnswer(
        id=delivery.delivery_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        status=delivery.status,
        response_code=delivery.response_code or None,
        response_time_ms=round(delivery.duration_ms, 3) if delivery.attempts_made else None,
        attempts_made=delivery.attempts_made,
        created_at=rfc3339(delivery.created_at_ms),
        updated_at=rfc3339(delivery.updated_at_ms),
        next_attempt_at=time_of(delivery.next_attempt_at_ms),
        error=delivery.error or None,
        reason=delivery.reason or None,
        test=delivery.test,
        replay_id=delivery.run or None,
    )


def delivery_detail_answer(delivery: LoggedDelivery) -> DeliveryDetailAnswer:
    """Show a delivery with its attempts."""
    attempts = sorted(delivery.attempts, key=lambda made: (made.run, made.attempt))
    return DeliveryDetailAnswer(**fields_of(delivery_answer(delivery)), attempts=[_attempt(made) for made in attempts])


def _attempt(made: LoggedAttempt) -> AttemptAnswer:
    return AttemptAnswer(
        attempt=made.attempt,
        at=rfc3339(made.at_ms),
        status=made.status,
        response_code=made.response_code or None,
        response_time_ms=round(made.duration_ms, 3),
        response_body=made.response_body.decode("utf-8", "replace"),
        error=made.error or None,
        replay_id=made.run or None,
    )


def fields_of(answer: Answer) -> dict[str, Any]:
    """Return the fields of an answer, to make one from that has more."""
    return {name: getattr(answer, name) for name in type(answer).model_fields}


def _warnings(warnings: Iterable[Warned]) -> list[WarningAnswer]:
    return [WarningAnswer(field=warned.field, message=warned.message) for warned in warnings]


def time_of(at_ms: int | None) -> str | None:
    """Show a time that may be missing."""
    return None if at_ms is None else rfc3339(at_ms)
