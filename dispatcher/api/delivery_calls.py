"""The calls about a webhook's deliveries."""

from aiohttp import web

from dispatcher.api.answers import (
    DeliveryDetailAnswer,
    DeliveryPageAnswer,
    delivery_answer,
    delivery_detail_answer,
    json_answer,
)
from dispatcher.api.queries import PAGING, SPAN, read_listing
from dispatcher.api.routes import Parameter, Route
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.matching import TYPE
from dispatcher.operations.deliveries import FILTERS, Deliveries, read_filter
from dispatcher.ports import ApiKey

_STATUS = Parameter("status", "only deliveries that stand here", {"type": "string", "enum": list(DeliveryStatus)})
_TYPE = Parameter("type", "only deliveries of this event type", {"type": "string", "pattern": f"^{TYPE.pattern}$"})


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
