"""What is done with a webhook: test it, rotate its secret, switch it on and off, delete it."""

import asyncio
import re
from collections.abc import Sequence
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.console.backfill_offer import page_after
from dispatcher.console.forms import to_type_again
from dispatcher.console.frame import Frame, sentence
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Flash
from dispatcher.console.webhook_form import revision_of, with_warnings
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.delivery_log import DeliveryStatus, LoggedDelivery
from dispatcher.core.errors import (
    ChangedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from dispatcher.core.model import Status
from dispatcher.operations.audit import actor_of
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import DeliveryFilter

TEST_LOG = 8
"""How many results the test log shows: it is kept in the page's URL."""
OVERLAPS = (("3600", "1 hour"), ("86400", "1 day"), ("604800", "7 days"), ("0", "ends at once"))
OVERLAP = "86400"
"""What is chosen already: a receiver has a day to learn the new secret."""
COUNTED = 50
"""So many waiting deliveries are counted; more are "50 or more"."""
COUNT_SECONDS = 2.0

_NO_OVERLAP = "choose how long the former secret signs too"

_DELIVERY_ID = re.compile(r"del_[a-z0-9]{26}")


class ActionPages:
    """The pages of what can be done with a webhook.

    Args:
        frame: What stands around them.
        webhooks: The webhooks.
        tests: Sends test events.
        deliveries: Has their results.
        rotation: Rotates secrets.
        catalogue: The types to test with.
    """

    def __init__(
        self,
        frame: Frame,
        webhooks: Webhooks,
        tests: EventTests,
        deliveries: Deliveries,
        rotation: SecretRotation,
        catalogue: Catalogue,
    ) -> None:
        self._frame = frame
        self._webhooks = webhooks
        self._tests = tests
        self._deliveries = deliveries
        self._rotation = rotation
        self._catalogue = catalogue

    def pages(self) -> tuple[Page, ...]:
        """List them."""
        return (
            Page("GET", "/webhooks/{id}/test", self.test),
            Page("POST", "/webhooks/{id}/test", self.send, "write"),
            Page("GET", "/webhooks/{id}/rotate", self.ask_rotate, "write"),
            Page("POST", "/webhooks/{id}/rotate", self.rotate, "write"),
            Page("GET", "/webhooks/{id}/deactivate", self.ask_deactivate, "write"),
            Page("POST", "/webhooks/{id}/status", self.set_status, "write"),
            Page("GET", "/webhooks/{id}/delete", self.ask_delete, "write"),
            Page("POST", "/webhooks/{id}/delete", self.delete, "write"),
        )

    async def test(self, request: web.Request, visit: Visit) -> web.Response:
        """Show the form that sends a test event, and what came of those before."""
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        ids = _log_of(request.query.get("log", ""))
        values = {
            "webhook": webhook,
            "types": self._catalogue.types,
            "chosen": request.query.get("type", ""),
            "log": ",".join(ids),
            "results": await self._results(workspace_id, webhook_id, ids),
        }
        return self._frame.page(request, visit, "test_events.html", values)

    async def send(self, request: web.Request, visit: Visit) -> web.Response:
        """Send a test event now, and show what came of it."""
        webhook_id, event_type = request.match_info["id"], visit.form.get("type", "")
        location = f"/console/webhooks/{webhook_id}/test"
        log = _log_of(visit.form.get("log", ""))
        try:
            sent, by = {"type": event_type or None}, actor_of(visit.caller)
            result = await self._tests.send(visit.caller.workspace_id, webhook_id, sent, by=by)
        except InvalidInputError as error:
            return self._frame.go(request, visit, location, Flash(f"Nothing was sent: {error}.", "bad"))
        except TooManyRequestsError as error:
            query = urlencode({"type": event_type, "log": ",".join(log)})
            return self._frame.go(request, visit, f"{location}?{query}", Flash(sentence(str(error)), "bad"))
        log = [result.delivery_id, *log][:TEST_LOG]
        query = urlencode({"type": result.event_type, "log": ",".join(log)})
        return self._frame.go(request, visit, f"{location}?{query}")

    async def ask_rotate(self, request: web.Request, visit: Visit) -> web.Response:
        """Ask whether the secret is to be rotated."""
        return await self._rotation_form(request, visit, {})

    async def rotate(self, request: web.Request, visit: Visit) -> web.Response:
        """Rotate the secret; the webhook's page shows the new one, once."""
        webhook_id = request.match_info["id"]
        overlap, secret = visit.form.get("overlap_seconds", ""), visit.form.get("secret", "").strip()
        if overlap not in dict(OVERLAPS):
            return await self._rotation_form(request, visit, {"overlap_seconds": _NO_OVERLAP}, status=422)
        sent = {"overlap_seconds": int(overlap), "secret": secret or None}
        only = revision_of(visit.form)
        try:
            rotated = await self._rotation.rotate(
                visit.caller.workspace_id, webhook_id, sent, only=only, by=actor_of(visit.caller)
            )
        except InvalidInputError as error:
            return await self._rotation_form(request, visit, error.fields, status=422)
        except ChangedError:
            return await self._rotation_form(request, visit, {}, status=409, changed=True)
        except ConflictError as error:
            return await self._rotation_form(request, visit, {"secret": sentence(str(error))}, status=409)
        ends = rotated.overlap_ends_at_ms is not None
        text = "The secret was rotated. The former one signs too until it ends." if ends else "The secret was rotated."
        flash = Flash(with_warnings(text, rotated.warnings, rotated.webhook), "good", rotated.secret, webhook_id)
        return self._frame.go(request, visit, f"/console/webhooks/{webhook_id}", flash)

    async def ask_deactivate(self, request: web.Request, visit: Visit) -> web.Response:
        """Ask whether a webhook is to be deactivated, and say what that does to what waits."""
        return await self._deactivation_form(request, visit)

    async def set_status(self, request: web.Request, visit: Visit) -> web.Response:
        """Activate or deactivate a webhook."""
        webhook_id, status = request.match_info["id"], visit.form.get("status", "")
        location = f"/console/webhooks/{webhook_id}"
        try:
            changed = await self._webhooks.update(
                visit.caller.workspace_id,
                webhook_id,
                {"status": status},
                only=revision_of(visit.form),
                by=actor_of(visit.caller),
            )
        except InvalidInputError as error:
            return self._frame.go(request, visit, location, Flash(f"Nothing was changed: {error}.", "bad"))
        except ChangedError:
            if status == Status.INACTIVE:
                return await self._deactivation_form(request, visit, status=409, changed=True)
            text = (
                "Nothing was changed: somebody else changed the webhook since you opened its page. Look, and try again."
            )
            return self._frame.go(request, visit, location, Flash(text, "bad"))
        texts = {
            "active": "Active: new events are delivered from now on. Those from before come with a replay.",
            "inactive": "Inactive: nothing is sent any more. What waits is skipped when it is due.",
        }
        return self._frame.go(request, visit, page_after(changed), Flash(texts[status]))

    async def ask_delete(self, request: web.Request, visit: Visit) -> web.Response:
        """Ask whether a webhook is to be deleted."""
        webhook = await self._webhooks.get(visit.caller.workspace_id, request.match_info["id"])
        return self._frame.page(request, visit, "delete.html", {"webhook": webhook, "changed": False})

    async def delete(self, request: web.Request, visit: Visit) -> web.Response:
        """Delete a webhook."""
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        try:
            await self._webhooks.delete(
                workspace_id, webhook_id, only=revision_of(visit.form), by=actor_of(visit.caller)
            )
        except ChangedError:
            webhook = await self._webhooks.get(workspace_id, webhook_id)
            return self._frame.page(request, visit, "delete.html", {"webhook": webhook, "changed": True}, status=409)
        flash = Flash(f"{webhook.name or webhook_id} was deleted.")
        return self._frame.go(request, visit, "/console/webhooks", flash)

    async def _rotation_form(
        self,
        request: web.Request,
        visit: Visit,
        problems: dict[str, str],
        *,
        status: int = 200,
        changed: bool = False,
    ) -> web.Response:
        webhook = await self._webhooks.get(visit.caller.workspace_id, request.match_info["id"])
        values = {
            "webhook": webhook,
            "overlaps": OVERLAPS,
            "values": {"overlap_seconds": visit.form.get("overlap_seconds", OVERLAP)},
            "problems": {**to_type_again(visit.form), **problems},
            "changed": changed,
        }
        return self._frame.page(request, visit, "rotate.html", values, status=status)

    async def _deactivation_form(
        self, request: web.Request, visit: Visit, *, status: int = 200, changed: bool = False
    ) -> web.Response:
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        retrying, waiting, more = DeliveryFilter(status=DeliveryStatus.RETRYING), None, False
        try:
            # One that has a long log and nothing that waits may take long to count: the question doesn't hang on it.
            async with asyncio.timeout(COUNT_SECONDS):
                page = await self._deliveries.page(workspace_id, webhook_id, retrying, None, COUNTED)
            waiting, more = len(page.rows), page.next_cursor is not None
        except (TimeoutError, UnavailableError):
            waiting = None
        values = {"webhook": webhook, "waiting": waiting, "more": more, "changed": changed}
        return self._frame.page(request, visit, "deactivate.html", values, status=status)

    async def _results(self, workspace_id: str, webhook_id: str, ids: Sequence[str]) -> list[LoggedDelivery]:
        results = []
        for delivery_id in ids:
            try:
                results.append(await self._deliveries.get(workspace_id, webhook_id, delivery_id))
            except NotFoundError:
                continue  # the log lost it, or keeps it no more
        return results


def _log_of(text: str) -> list[str]:
    return [each for each in text.split(",") if _DELIVERY_ID.fullmatch(each)][:TEST_LOG]
