"""What whoever is on call looks at first: how deliveries fare, what failed, what is disabled."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from dispatcher.console import plots
from dispatcher.console.frame import Frame, sentence
from dispatcher.console.routes import Page, Visit
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.delivery_log import FailedFilter, LoggedDelivery
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Status
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.overview import WINDOWS, Overview, Overviews
from dispatcher.operations.times import rfc3339
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import WebhookFilter

LATEST = 5


class OverviewPages:
    """The console's first page.

    Args:
        frame: What stands around it.
        overviews: Counts and measures.
        webhooks: Which are disabled.
        letters: Which deliveries failed.
        catalogue: Titles of event types.
    """

    def __init__(
        self, frame: Frame, overviews: Overviews, webhooks: Webhooks, letters: DeadLetters, catalogue: Catalogue
    ) -> None:
        self._frame = frame
        self._overviews = overviews
        self._webhooks = webhooks
        self._letters = letters
        self._catalogue = catalogue

    def pages(self) -> tuple[Page, ...]:
        """List it."""
        return (Page("GET", "", self.show),)

    async def show(self, request: web.Request, visit: Visit) -> web.Response:
        """Show how deliveries fare."""
        window = request.query.get("window", "1h")
        window = window if window in WINDOWS else "1h"
        workspace_id = visit.caller.workspace_id
        disabled = WebhookFilter(status=Status.DISABLED)
        overview, off, (failed, failed_trouble) = await asyncio.gather(
            self._overviews.of(workspace_id, window),
            self._webhooks.page(workspace_id, None, LATEST, wanted=disabled),
            self._failed(workspace_id),
        )
        values = {
            "overview": overview,
            "window": window,
            "windows": list(WINDOWS),
            "disabled": off.rows,
            "failed": failed,
            "failed_trouble": failed_trouble,
            "since": rfc3339(overview.buckets[0].at_ms),
            "types": self._catalogue.types,
            "plots": _drawn(overview),
        }
        return self._frame.page(request, visit, "overview.html", values)

    async def _failed(self, workspace_id: str) -> tuple[Sequence[LoggedDelivery], str]:
        """Return the latest failures; where looking for them takes too long, none and a word on that."""
        try:
            return (await self._letters.page(workspace_id, FailedFilter(), None, LATEST)).rows, ""
        except UnavailableError as error:
            if not error.shown:
                raise
            return (), sentence(error.shown)


def _drawn(overview: Overview) -> dict[str, object]:
    return {
        "rate": plots.rate(overview),
        "success": plots.success(overview),
        "latency": plots.latency(overview),
        "backlog": plots.backlog(overview),
    }
