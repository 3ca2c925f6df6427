"""Send an event type's sample to a webhook now, as a delivery is sent, and log what came of it as a test.

Whatever the webhook's status: one tries an endpoint before one activates it. A test is one request: nothing retries
it, and no answer of the endpoint changes the webhook.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import Field

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.decoding import decode, rfc3339
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.errors import InvalidInputError, InvalidUrlError, NotFoundError, SealError, UnavailableError
from dispatcher.core.exchange import Request, Response
from dispatcher.core.json_form import dump
from dispatcher.core.matching import patterns_of
from dispatcher.core.model import Event, Origin, Subscription
from dispatcher.core.outcome import describe, is_success
from dispatcher.core.rendering import RequestTemplate, unsendable
from dispatcher.core.sealing import Keyring
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.identifiers import Draw, new_id
from dispatcher.operations.inputs import Input, read_input
from dispatcher.operations.rate_limits import EventTestLimits
from dispatcher.ports import Actor, Clock, DeliveryLogWriter, Sender, WebhookStore

log = structlog.get_logger(__name__)

EVENT_ID_PREFIX = "evt_test_"


class EventTestInput(Input):
    """What a test takes."""

    type: str | None = Field(None, description="one event type of the catalogue, such as user.created")


@dataclass(frozen=True, slots=True)
class EventTestResult:
    """What came of a test.

    Attributes:
        event_id: `evt_test_…`.
        event_type: The type that was sent.
        delivery_id: Where the delivery log has it.
        status: Delivered or failed.
        response_code: Status code, 0 where none came.
        response_body: The response body's first 4 KiB.
        duration_ms: To the complete response headers, or to the failure.
        error: What went wrong, in words; empty where nothing did.
    """

    event_id: str
    event_type: str
    delivery_id: str
    status: DeliveryStatus
    response_code: int
    response_body: bytes
    duration_ms: float
    error: str


class EventTests:
    """Sends test events; each call sees one workspace and nothing else.

    Args:
        store: Where webhooks are kept.
        catalogue: Its samples are what is sent.
        sender: Sends, under the same guard as deliveries are.
        log_writer: Takes the result.
        keyring: Opens the webhook's secrets.
        clock: Time.
        draw: Random bytes.
        user_agent: The User-Agent header's value.
        limits: How many a workspace may send; None: the usual ones.
        audit: Where it is written down who sent one; None: nowhere.
    """

    def __init__(
        self,
        store: WebhookStore,
        catalogue: Catalogue,
        sender: Sender,
        log_writer: DeliveryLogWriter,
        keyring: Keyring,
        clock: Clock,
        draw: Draw,
        user_agent: str,
        *,
        limits: EventTestLimits | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._limits = limits or EventTestLimits(clock)
        self._audit = audit
        self._store = store
        self._catalogue = catalogue
        self._sender = sender
        self._log = log_writer
        self._keyring = keyring
        self._clock = clock
        self._draw = draw
        self._user_agent = user_agent

    async def send(self, workspace_id: str, webhook_id: str, sent: Any, *, by: Actor = COMMAND_LINE) -> EventTestResult:
        """Send a sample and wait for the outcome, at most for the webhook's timeout and a second for the body.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            sent: A JSON-like object: `type`, or nothing: then the first of the catalogue that the webhook wants.
            by: Who sends it.

        Raises:
            InvalidInputError: It names every wrong field; nothing is sent.
            NotFoundError: There is no such webhook in this workspace.
            TooManyRequestsError: The workspace sent too many, or has too many under way; nothing is sent.
            UnavailableError: The store is out of reach; nothing is sent.
        """
        wanted = read_input(EventTestInput, sent)
        webhook = await self._store.get(workspace_id, webhook_id)
        if webhook is None:
            raise NotFoundError("there is no such webhook in this workspace; GET /v1/webhooks lists those there are")
        subscription = webhook.subscription
        event = self._event(workspace_id, self._type_of(wanted.type, subscription))
        delivery_id = DeliveryIds(workspace_id, event.source, event.id).of(subscription.id)
        async with self._limits.one(workspace_id):
            response = await self._exchange(subscription, event, delivery_id)
        result = _result(event, delivery_id, response)
        await self._write(subscription, event, result)
        await self._note(by, webhook_id, workspace_id, result)
        return result

    async def _note(self, by: Actor, webhook_id: str, workspace_id: str, result: EventTestResult) -> None:
        if self._audit is not None:
            told = {"type": result.event_type, "delivery_id": result.delivery_id, "status": result.status.value}
            changes = {name: (None, value) for name, value in told.items()}
            await self._audit.note(workspace_id, by, "webhook.test", webhook_id, changes)

    def _type_of(self, given: str | None, subscription: Subscription) -> str:
        types = self._catalogue.types
        if given is None:
            if not types:
                raise InvalidInputError({"type": "the event catalogue is empty: there is nothing to send"})
            wanted = set(subscription.events)
            return next((each for each in types if not wanted.isdisjoint(patterns_of(each))), next(iter(types)))
        if given not in types:
            raise InvalidInputError(
                {"type": "has no sample in the event catalogue; send a type that GET /v1/event-types lists"}
            )
        return given

    def _event(self, workspace_id: str, event_type: str) -> Event:
        now_ms = self._clock.now_ms()
        envelope = {
            "id": new_id(EVENT_ID_PREFIX, self._draw),
            "type": event_type,
            "created_at": rfc3339(now_ms),
            "workspace_id": workspace_id,
            "data": self._catalogue.types[event_type].sample,
        }
        # No topic has it: nothing can read it again.
        return decode(dump(envelope), (), Origin("", -1, -1, now_ms), None)

    async def _exchange(self, subscription: Subscription, event: Event, delivery_id: str) -> Response:
        try:
            template = RequestTemplate(subscription, self._keyring, self._user_agent)
            request = template.render(event, delivery_id, 1, self._clock.now_ms())
        except (InvalidUrlError, SealError, ValueError) as error:
            return unsendable(error)
        response = await _answer_to(self._sender, request)
        response.body = template.without_secrets(response.body)
        return response

    async def _write(self, subscription: Subscription, event: Event, result: EventTestResult) -> None:
        entry = LogEntry(
            delivery_id=result.delivery_id,
            workspace_id=event.workspace_id,
            subscription_id=subscription.id,
            event_id=event.id,
            event_type=event.type,
            source=event.source,
            origin=event.origin,
            run="",
            attempt=1,
            status=result.status,
            at_ms=self._clock.now_ms(),
            duration_ms=result.duration_ms,
            response_code=result.response_code,
            error=result.error,
            response_body=result.response_body,
            test=True,
        )
        try:
            await self._log.write([entry])
        except UnavailableError as error:
            # It was sent: the caller's answer is the result, not that nothing is known of it.
            log.warning("a test event is not in the delivery log", event_id=event.id, error=str(error))


async def _answer_to(sender: Sender, request: Request) -> Response:
    answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def settle(response: Response) -> None:
        if not answered.done():
            answered.set_result(response)

    sender.send(request, settle)
    return await answered


def _result(event: Event, delivery_id: str, response: Response) -> EventTestResult:
    return EventTestResult(
        event_id=event.id,
        event_type=event.type,
        delivery_id=delivery_id,
        status=DeliveryStatus.DELIVERED if is_success(response) else DeliveryStatus.FAILED,
        response_code=response.status,
        response_body=response.body,
        duration_ms=response.duration_ms,
        error=describe(response),
    )
