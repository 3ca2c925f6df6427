"""A webhook's delivery log: the rows, one delivery with its requests and responses, and its redelivery."""

import json

from aiohttp import web

from dispatcher.console.form_times import as_rfc3339
from dispatcher.console.frame import LIVE_HEADER, Frame, sentence
from dispatcher.console.paging import ROWS, cursor_of, filters_of, links
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Flash
from dispatcher.console.timeline import steps_of
from dispatcher.console.words import written
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.delivery_log import TERMINAL, DeliveryStatus, LoggedAttempt, LoggedDelivery
from dispatcher.core.errors import ConflictError, GoneError, InvalidInputError, NotFoundError
from dispatcher.core.model import RetryTier, Status, Webhook
from dispatcher.operations.audit import actor_of
from dispatcher.operations.deliveries import FILTERS, Deliveries, read_filter
from dispatcher.operations.inspection import Inspections, ShownRequest
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import DeliveryFilter

MAX_INDENTED_BYTES = 16 * 1024


class DeliveryPages:
    """The pages of deliveries.

    Args:
        frame: What stands around them.
        webhooks: Whose deliveries they are.
        deliveries: The log.
        redeliveries: Sends again.
        inspections: Rebuilds requests.
        catalogue: Titles of event types.
        tiers: The schedule.
    """

    def __init__(
        self,
        frame: Frame,
        webhooks: Webhooks,
        deliveries: Deliveries,
        redeliveries: Redeliveries,
        inspections: Inspections,
        catalogue: Catalogue,
        tiers: tuple[RetryTier, ...],
    ) -> None:
        self._frame = frame
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._redeliveries = redeliveries
        self._inspections = inspections
        self._catalogue = catalogue
        self._tiers = tiers

    def pages(self) -> tuple[Page, ...]:
        """List them."""
        return (
            Page("GET", "/webhooks/{id}/deliveries", self.list),
            Page("GET", "/webhooks/{id}/deliveries/{delivery_id}", self.show),
            Page("POST", "/webhooks/{id}/deliveries/{delivery_id}/redeliver", self.redeliver, "write"),
        )

    async def list(self, request: web.Request, visit: Visit) -> web.Response:
        """List a webhook's deliveries, newest first; what the URL filters by is what its reader sees."""
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        filters = filters_of(request, FILTERS)
        wanted, problems = _wanted(filters)
        page = await self._deliveries.page(workspace_id, webhook_id, wanted, cursor_of(request), ROWS)
        values = {
            "webhook": webhook,
            "rows": page.rows,
            "types": self._catalogue.types,
            "filters": filters,
            "problems": problems,
            "statuses": list(DeliveryStatus),
            **links(request, page, filters),
        }
        return self._frame.page(request, visit, "deliveries.html", values, status=422 if problems else 200)

    async def show(self, request: web.Request, visit: Visit) -> web.Response:
        """Show a delivery: its way through the tiers, and one attempt's request and response side by side."""
        workspace_id, matched = visit.caller.workspace_id, request.match_info
        delivery = await self._deliveries.get(workspace_id, matched["id"], matched["delivery_id"])
        try:
            webhook = await self._webhooks.get(workspace_id, matched["id"])
        except NotFoundError:
            webhook = None
        attempt = _chosen(delivery, request.query.get("run"), request.query.get("attempt", ""))
        shown: ShownRequest | None = None
        if webhook is not None and attempt is not None and LIVE_HEADER not in request.headers:
            shown = await self._inspections.request(webhook, delivery, attempt)
        values = {
            "webhook": webhook,
            "delivery": delivery,
            "attempt": attempt,
            "shown": shown,
            "indented": "" if shown is None else _indented(shown.body),
            "changed": webhook is not None and attempt is not None and webhook.updated_at_ms > attempt.at_ms,
            "steps": steps_of(delivery, self._tiers, 0 if webhook is None else webhook.subscription.max_attempts),
            "ended": delivery.status in TERMINAL,
            "types": self._catalogue.types,
            "can_redeliver": visit.may_write and _can_redeliver(webhook, delivery),
        }
        return self._frame.page(request, visit, "delivery.html", values)

    async def redeliver(self, request: web.Request, visit: Visit) -> web.Response:
        """Send a delivery again and show it."""
        matched = request.match_info
        webhook_id, delivery_id = matched["id"], matched["delivery_id"]
        try:
            await self._redeliveries.redeliver(
                visit.caller.workspace_id, webhook_id, delivery_id, by=actor_of(visit.caller)
            )
            flash = Flash("On its way again: what becomes of it shows below.")
        except (ConflictError, GoneError) as error:
            flash = Flash(f"Not sent: {sentence(str(error))}", "bad")
        location = f"/console/webhooks/{webhook_id}/deliveries/{delivery_id}"
        return self._frame.go(request, visit, location, flash)


def _can_redeliver(webhook: Webhook | None, delivery: LoggedDelivery) -> bool:
    return webhook is not None and not delivery.test and webhook.subscription.status == Status.ACTIVE


def _wanted(filters: dict[str, str]) -> tuple[DeliveryFilter, dict[str, str]]:
    """Read the filters of a URL; where some are wrong, nothing is filtered and each is told."""
    sent = {name: as_rfc3339(text) if name in {"since", "until"} else text for name, text in filters.items()}
    try:
        return read_filter(sent), {}
    except InvalidInputError as error:
        return DeliveryFilter(), error.fields


def _indented(body: bytes | None) -> str:
    """Write JSON so that it reads well; empty where a body is none, or long."""
    if body is None or len(body) > MAX_INDENTED_BYTES:
        return ""
    try:
        return written(json.loads(body))
    except (ValueError, RecursionError):
        return ""


def _chosen(delivery: LoggedDelivery, run: str | None, number: str) -> LoggedAttempt | None:
    """Return the attempt that a URL names, else the latest."""
    made = sorted(delivery.attempts, key=lambda each: (each.run, each.attempt))
    named = [each for each in made if each.run == (run or "") and str(each.attempt) == number]
    return next(reversed(named or made), None)
