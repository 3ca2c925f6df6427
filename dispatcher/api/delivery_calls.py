"""The calls about deliveries: of one webhook, and those of the workspace that failed for good."""

from aiohttp import web

from dispatcher.api.answers import (
    DeadLetterPageAnswer,
    DeliveryDetailAnswer,
    DeliveryPageAnswer,
    dead_letter_answer,
    delivery_answer,
    delivery_detail_answer,
    json_answer,
)
from dispatcher.api.queries import PAGING, SPAN, read_listing
from dispatcher.api.routes import Parameter, Route
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.matching import TYPE
from dispatcher.core.model import DeadLetterReason
from dispatcher.operations.deliveries import (
    DEAD_LETTER_FILTERS,
    FILTERS,
    MAX_ID_LENGTH,
    Deliveries,
    read_filter,
)
from dispatcher.ports import ApiKey

_STATUS = Parameter("status", "only deliveries that stand here", {"type": "string", "enum": list(DeliveryStatus)})
_TYPE = Parameter("type", "only deliveries of this event type", {"type": "string", "pattern": f"^{TYPE.pattern}$"})
_SUBSCRIPTION = Parameter(
    "subscription",
    "only deliveries of the webhook with this id",
    {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
)
_REASON = Parameter(
    "reason", "only deliveries that failed for this reason", {"type": "string", "enum": list(DeadLetterReason)}
)


class DeliveryCalls:
    """List and show deliveries."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "GET",
                "/webhooks/{id}/deliveries",
                "read",
                self.page,
                operation="listDeliveries",
                query=(_STATUS, _TYPE, *SPAN, *PAGING),
                answer=DeliveryPageAnswer,
            ),
            Route(
                "GET",
                "/webhooks/{id}/deliveries/{delivery_id}",
                "read",
                self.get,
                operation="getDelivery",
                answer=DeliveryDetailAnswer,
            ),
            Route(
                "GET",
                "/dead-letters",
                "read",
                self.failed_page,
                operation="listDeadLetters",
                query=(_SUBSCRIPTION, _TYPE, _REASON, *SPAN, *PAGING),
                answer=DeadLetterPageAnswer,
            ),
        )

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List a webhook's deliveries, newest first."""
        wanted, cursor, limit = read_listing(request, FILTERS, read_filter)
        page = await self._deliveries.page(caller.workspace_id, request.match_info["id"], wanted, cursor, limit)
        data = [delivery_answer(delivery) for delivery in page.rows]
        return json_answer(DeliveryPageAnswer(data=data, next_cursor=page.next_cursor))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a delivery with its attempts."""
        matched = request.match_info
        delivery = await self._deliveries.get(caller.workspace_id, matched["id"], matched["delivery_id"])
        return json_answer(delivery_detail_answer(delivery))

    async def failed_page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List the workspace's failed deliveries, of all its webhooks, newest first."""
        wanted, cursor, limit = read_listing(request, DEAD_LETTER_FILTERS, read_filter)
        page = await self._deliveries.failed_page(caller.workspace_id, wanted, cursor, limit)
        data = [dead_letter_answer(delivery) for delivery in page.rows]
        return json_answer(DeadLetterPageAnswer(data=data, next_cursor=page.next_cursor))
