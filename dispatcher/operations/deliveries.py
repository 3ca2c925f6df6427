"""Show what was delivered, and what was not."""

from collections.abc import Mapping

from dispatcher.core.delivery_log import DeliveryStatus, LoggedDelivery
from dispatcher.core.errors import InvalidInputError, NotFoundError
from dispatcher.core.matching import TYPE
from dispatcher.operations.times import read_span
from dispatcher.ports import DeliveryFilter, DeliveryLogReader, Page, WebhookStore

FILTERS = ("status", "type", "since", "until")
"""What a webhook's listing can be filtered by, as callers name it."""


def read_filter(sent: Mapping[str, str]) -> DeliveryFilter:
    """Read a filter from text, as it stands in a URL or a form.

    Args:
        sent: Any of `FILTERS` to its text; what is missing filters nothing.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    (since_ms, until_ms), problems = read_span(sent)
    status = sent.get("status")
    if status is not None and status not in set(DeliveryStatus):
        problems["status"] = f"send one of {', '.join(DeliveryStatus)}"
    event_type = sent.get("type")
    if event_type is not None and not TYPE.fullmatch(event_type):
        problems["type"] = "send one event type, such as user.created"
    if problems:
        raise InvalidInputError(problems)
    return DeliveryFilter(status=status, event_type=event_type, since_ms=since_ms, until_ms=until_ms)


class Deliveries:
    """The deliveries of webhooks; each call sees one workspace and nothing else.

    Args:
        log: Where deliveries are read from.
        webhooks: Where webhooks are kept: one that is unknown has no list, rather than an empty one.
    """

    def __init__(self, log: DeliveryLogReader, webhooks: WebhookStore) -> None:
        self._log = log
        self._webhooks = webhooks

    async def page(
        self, workspace_id: str, webhook_id: str, wanted: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[LoggedDelivery]:
        """Return one page, newest first, attempts left out.

        Raises:
            NotFoundError: There is no such webhook in this workspace.
            InvalidInputError: The cursor is none of ours.
            UnavailableError: The store is out of reach.
        """
        if await self._webhooks.get(workspace_id, webhook_id) is None:
            raise NotFoundError("there is no such webhook in this workspace; GET /v1/webhooks lists those there are")
        return await self._log.page(workspace_id, webhook_id, wanted, cursor, limit)

    async def get(self, workspace_id: str, webhook_id: str, delivery_id: str) -> LoggedDelivery:
        """Return one delivery with its attempts; also one of a webhook that was deleted since.

        Raises:
            NotFoundError: There is no such delivery of this webhook in this workspace.
            UnavailableError: The store is out of reach.
        """
        delivery = await self._log.get(workspace_id, webhook_id, delivery_id)
        if delivery is None:
            raise NotFoundError(
                "there is no such delivery of this webhook in this workspace; "
                "GET /v1/webhooks/{id}/deliveries lists those that are still kept"
            )
        return delivery
