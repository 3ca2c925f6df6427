"""Makes the attempts: resolves the subscription, renders, signs, sends, and settles what comes of it."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import cast

import structlog

from dispatcher.core.breaker import Permit
from dispatcher.core.errors import InvalidUrlError, SealError
from dispatcher.core.exchange import Response, SendFailure
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import DeadLetterReason, RetryTier, Status, Subscription
from dispatcher.core.outcome import DELIVERED, DeadLetter, classify, describe, is_overloaded, is_success
from dispatcher.core.rendering import RequestTemplate, unsendable
from dispatcher.core.sealing import Keyring
from dispatcher.metrics import Metrics, cause_of
from dispatcher.pipeline.endpoint_health import EndpointHealth
from dispatcher.pipeline.lane import Lane
from dispatcher.pipeline.lanes import Lanes
from dispatcher.pipeline.settlement import Settlement
from dispatcher.pipeline.work import Delivery
from dispatcher.ports import Clock, Sender, Tracer

log = structlog.get_logger(__name__)

MAX_TEMPLATES = 10_000

_CIRCUIT_OPEN = Response(
    0, SendFailure.CIRCUIT_OPEN, "nearly every recent attempt failed, so nothing was sent", None, b"", 0.0
)

Disable = Callable[[Subscription, str, Callable[[], None]], None]
"""Disables a subscription, for a reason, and calls back when that is durable."""


class RequestTemplates:
    """The templates in use, opened at first use and bounded: the least recently used one goes first.

    Args:
        keyring: Opens the secrets.
        user_agent: The User-Agent header's value.
    """

    def __init__(self, keyring: Keyring, user_agent: str) -> None:
        self._keyring = keyring
        self._user_agent = user_agent
        self._templates: OrderedDict[str, RequestTemplate] = OrderedDict()

    def of(self, subscription: Subscription) -> RequestTemplate:
        """Return the template of this very revision.

        Raises:
            InvalidUrlError: The stored URL can't be used.
            SealError: A secret can't be opened.
        """
        templates = self._templates
        template = templates.get(subscription.id)
        if template is None or template.subscription is not subscription:
            template = RequestTemplate(subscription, self._keyring, self._user_agent)
            templates[subscription.id] = template
            if len(templates) > MAX_TEMPLATES:
                templates.popitem(last=False)
        templates.move_to_end(subscription.id)
        return template


class Attempts:
    """Starts attempts for the lanes, and takes their answers.

    Args:
        index: Today's subscriptions.
        templates: What their requests have in common.
        sender: Sends.
        settlement: Brings outcomes to their place.
        tiers: The schedule.
        clock: The time.
        metrics: Counts.
        disable: Disables a subscription whose endpoint is gone.
        wake: Called when an answer came, when room may have come.
        health: Told of endpoints that fail; None: nobody is.
        tracer: Told of attempts; None: nobody is.
    """

    def __init__(
        self,
        index: SubscriptionIndex,
        templates: RequestTemplates,
        sender: Sender,
        settlement: Settlement,
        tiers: tuple[RetryTier, ...],
        clock: Clock,
        metrics: Metrics,
        disable: Disable,
        wake: Callable[[], None],
        health: EndpointHealth | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._index = index
        self._templates = templates
        self._sender = sender
        self._settlement = settlement
        self._tiers = tiers
        self._clock = clock
        self._metrics = metrics
        self._disable = disable
        self._wake = wake
        self._health = health
        self._tracer = tracer
        self._failing = set[str]() if health is None else health.failing
        self.lanes: Lanes | None = None

    def look_up(self, delivery: Delivery) -> Subscription | None:
        """Return what a delivery's subscription is today; None where there is none any more.

        What was looked up for the delivery itself counts until the index knows better.
        """
        known = self._index.get(delivery.subscription_id)
        if known is not None or self._index.was_removed(delivery.subscription_id):
            return known
        return delivery.subscription

    def start(self, delivery: Delivery, lane: Lane) -> bool:
        """Start the next attempt, with what the subscription says now.

        Returns:
            False where there is none to make: the delivery is settled already.
        """
        # The index is asked again: the delivery may have waited, and its subscription changed meanwhile.
        subscription = self.look_up(delivery)
        now_ms = self._clock.now_ms()
        if subscription is None or subscription.status != Status.ACTIVE:
            self._settlement.skipped(delivery, "deleted" if subscription is None else subscription.status, now_ms)
            return False
        if subscription.workspace_id != delivery.event.workspace_id:
            log.error("event and subscription are of different workspaces", delivery_id=delivery.id)
            self._settlement.failed_unsent(
                delivery, DeadLetterReason.WORKSPACE_MISMATCH, "the subscription is of another workspace", now_ms
            )
            return False
        if delivery.attempt > subscription.max_attempts:
            self._settlement.failed_unsent(
                delivery, DeadLetterReason.ATTEMPTS_EXHAUSTED, "max_attempts is now below the attempts made", now_ms
            )
            return False
        delivery.subscription = subscription
        if lane.subscription is not subscription:
            cast("Lanes", self.lanes).meet(lane, subscription)
        if lane.breaker.is_open and not self._may_probe(delivery, subscription, lane, now_ms):
            return False
        traceparent = None if self._tracer is None else self._trace(delivery, subscription)
        try:
            template = self._templates.of(subscription)
            request = template.render(delivery.event, delivery.id, delivery.attempt, now_ms, traceparent)
        except (InvalidUrlError, SealError, ValueError) as error:
            if delivery.probe:
                delivery.probe = False
                lane.breaker.probe_unused()
            response = _unsendable(error, subscription.id)
            if delivery.span is not None:
                delivery.span.end(error=describe(response))
            self._settle(delivery, subscription, response)
            return False
        delivery.in_flight = True
        self._sender.send(request, partial(self._answered, delivery, template, lane))
        return True

    def _trace(self, delivery: Delivery, subscription: Subscription) -> str | None:
        """Begin an attempt's span; return what its endpoint is to know of it."""
        event = delivery.event
        tracer = cast("Tracer", self._tracer)
        span = tracer.attempt(event.traceparent, event, subscription, delivery.id, delivery.attempt)
        delivery.span = span
        return None if span is None else span.traceparent

    def _may_probe(self, delivery: Delivery, subscription: Subscription, lane: Lane, now_ms: int) -> bool:
        """Say whether an attempt may find out about an open circuit; where it may not, its step is settled."""
        if lane.breaker.permit(cast("Lanes", self.lanes).now) is Permit.PROBE:
            delivery.probe = True
            return True
        self._metrics.circuit_skipped.inc()
        if delivery.attempt >= subscription.max_attempts:
            self._settlement.wait_for_circuit(delivery, now_ms)
        else:
            outcome = classify(_CIRCUIT_OPEN, delivery.attempt, subscription.max_attempts, self._tiers, now_ms)
            self._settlement.attempted(delivery, _CIRCUIT_OPEN, outcome, now_ms)
        return False

    def _answered(self, delivery: Delivery, template: RequestTemplate, lane: Lane, response: Response) -> None:
        subscription = template.subscription
        if response.body:
            response.body = template.without_secrets(response.body)
        delivery.in_flight = False
        if delivery.span is not None:
            delivery.span.end(status=response.status, error=describe(response))
        succeeded = is_success(response)
        cast("Lanes", self.lanes).finished(
            delivery,
            lane,
            seconds=response.duration_ms / 1000,
            succeeded=succeeded,
            overloaded=is_overloaded(response),
            is_current=_same_endpoint(lane.subscription, subscription),
        )
        delivery.probe = False
        if not succeeded or subscription.id in self._failing:
            self._note(subscription, response, succeeded=succeeded)
        if not delivery.given_away:
            self._settle(delivery, subscription, response)
        elif succeeded:
            self._settlement.log_late(delivery, response, self._clock.now_ms())
        self._wake()

    def _note(self, subscription: Subscription, response: Response, *, succeeded: bool) -> None:
        """Note how an endpoint fares; what this worker broke off itself says nothing of it."""
        if self._health is None:
            return
        if succeeded:
            self._health.succeeded(subscription, self._clock.now_ms())
        elif response.failure is not SendFailure.ABORTED:
            self._health.failed(subscription, self._clock.now_ms())

    def _settle(self, delivery: Delivery, subscription: Subscription, response: Response) -> None:
        now_ms = self._clock.now_ms()
        metrics = self._metrics
        if is_success(response):
            metrics.attempt_seconds["success"].observe(response.duration_ms / 1000)
            metrics.end_to_end_seconds.observe((now_ms - delivery.event.origin.timestamp_ms) / 1000)
            self._settlement.attempted(delivery, response, DELIVERED, now_ms)
            return
        metrics.attempt_seconds["failure"].observe(response.duration_ms / 1000)
        metrics.attempts_failed.counts[cause_of(response)] += 1
        outcome = classify(response, delivery.attempt, subscription.max_attempts, self._tiers, now_ms)
        match outcome:
            case DeadLetter(reason, disable=True):
                # Until that is durable the delivery stays its role's, which may have to hand it over.
                delivery.in_flight = True
                self._settlement.producing += 1
                self._disable(subscription, reason.value, partial(self._disabled, delivery, response, outcome, now_ms))
            case _:
                self._settlement.attempted(delivery, response, outcome, now_ms)

    def _disabled(self, delivery: Delivery, response: Response, outcome: DeadLetter, now_ms: int) -> None:
        delivery.in_flight = False
        self._settlement.producing -= 1
        if not delivery.given_away:
            self._settlement.attempted(delivery, response, outcome, now_ms)


def _same_endpoint(today: Subscription | None, then: Subscription) -> bool:
    return today is then or today is None or today.url == then.url


def _unsendable(error: Exception, subscription_id: str) -> Response:
    if isinstance(error, ValueError):
        log.error("a webhook can't be rendered", subscription_id=subscription_id)
    return unsendable(error)
