"""List, create, show and edit webhooks."""

from typing import Any

from aiohttp import web

from dispatcher.console import snippets, webhook_form
from dispatcher.console.backfill_offer import fields_of, offer_of, page_after
from dispatcher.console.forms import to_type_again
from dispatcher.console.frame import Frame
from dispatcher.console.paging import ROWS, cursor_of, filters_of, links
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Flash
from dispatcher.console.webhook_form import FormState
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.errors import ChangedError, InvalidInputError, QuotaError
from dispatcher.core.model import Status, Webhook
from dispatcher.operations.audit import actor_of
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import Clock, DeliveryFilter, WebhookFilter

LATEST = 5
"""How many deliveries a webhook's page shows."""
_FILTERS = ("q", "status")
_SAVED = "Saved."


class WebhookPages:
    """The pages of webhooks.

    Args:
        frame: What stands around them.
        webhooks: The webhooks.
        deliveries: Their latest deliveries.
        catalogue: The event types to choose from.
        clock: Time.
    """

    def __init__(
        self, frame: Frame, webhooks: Webhooks, deliveries: Deliveries, catalogue: Catalogue, clock: Clock
    ) -> None:
        self._frame = frame
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._catalogue = catalogue
        self._clock = clock

    def pages(self) -> tuple[Page, ...]:
        """List them."""
        return (
            Page("GET", "/webhooks", self.list),
            Page("GET", "/webhooks/new", self.new, "write"),
            Page("POST", "/webhooks/new", self.create, "write"),
            Page("GET", "/webhooks/{id}", self.show),
            Page("GET", "/webhooks/{id}/edit", self.edit, "write"),
            Page("POST", "/webhooks/{id}/edit", self.save, "write", once=False),
            Page("POST", "/webhooks/{id}/events", self.add_events, "write"),
        )

    async def list(self, request: web.Request, visit: Visit) -> web.Response:
        """List webhooks, newest first."""
        filters = filters_of(request, _FILTERS)
        status, problems = filters.get("status"), {}
        if status is not None and status not in set(Status):
            problems = {"status": f"choose one of {', '.join(Status)}; until then all are listed"}
        wanted = WebhookFilter() if problems else WebhookFilter(status=status, text=filters.get("q"))
        page = await self._webhooks.page(visit.caller.workspace_id, cursor_of(request), ROWS, wanted=wanted)
        values = {
            "rows": page.rows,
            "filters": filters,
            "problems": problems,
            "statuses": list(Status),
            "titles": {name: entry.title for name, entry in self._catalogue.types.items()},
            **links(request, page, filters),
        }
        return self._frame.page(request, visit, "webhooks.html", values, status=422 if problems else 200)

    async def new(self, request: web.Request, visit: Visit) -> web.Response:
        """Show the form of a new webhook."""
        return self._form(request, visit, webhook_form.blank(), None)

    async def create(self, request: web.Request, visit: Visit) -> web.Response:
        """Create a webhook; its page shows the secret, once."""
        sent, problems = webhook_form.input_of(visit.form)
        problems = {**self._webhooks.problems_of(sent), **problems}
        if problems:
            return self._form(request, visit, _with_problems(visit, problems), None, status=422)
        try:
            created = await self._webhooks.create(visit.caller.workspace_id, sent, by=actor_of(visit.caller))
        except QuotaError as error:
            return self._form(request, visit, _with_problems(visit, {"workspace": str(error)}), None, status=409)
        webhook_id = created.webhook.subscription.id
        text = webhook_form.with_warnings("The webhook is there.", created.warnings, created.webhook)
        flash = Flash(text, "good", created.secret, webhook_id)
        return self._frame.go(request, visit, f"/console/webhooks/{webhook_id}", flash)

    async def show(self, request: web.Request, visit: Visit) -> web.Response:
        """Show a webhook."""
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        latest = await self._deliveries.page(workspace_id, webhook_id, DeliveryFilter(), None, LATEST)
        chosen, now_ms = set(webhook.subscription.events), self._clock.now_ms()
        offer = offer_of(request.query) if webhook.subscription.status == Status.ACTIVE else None
        values = {
            "webhook": webhook,
            "latest": latest.rows,
            "former": [each for each in webhook.subscription.secrets if (each.expires_at_ms or 0) > now_ms],
            "missed": offer,
            "missed_fields": {} if offer is None else fields_of(offer),
            "types": self._catalogue.types,
            "missing": [
                (group, [entry for entry in entries if entry.type not in chosen])
                for group, entries in webhook_form.groups(self._catalogue)
                if "*" not in chosen and any(entry.type not in chosen for entry in entries)
            ],
            "snippets": snippets.all_snippets(),
            "signature_headers": snippets.HEADERS,
            "languages": snippets.LANGUAGES,
        }
        return self._frame.page(request, visit, "webhook.html", values)

    async def edit(self, request: web.Request, visit: Visit) -> web.Response:
        """Show the form of a webhook."""
        webhook = await self._webhooks.get(visit.caller.workspace_id, request.match_info["id"])
        return self._form(request, visit, webhook_form.of_webhook(webhook, self._catalogue), webhook)

    async def save(self, request: web.Request, visit: Visit) -> web.Response:
        """Change a webhook, if nobody else did since the form was drawn."""
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        sent, problems = webhook_form.input_of(visit.form, webhook)
        only = webhook_form.revision_of(visit.form) or ()
        wanted = webhook_form.changed(sent, webhook)
        if webhook.subscription.revision not in only:
            if only and not wanted and not problems:
                # The same form came twice, or somebody else saved the very same.
                return self._frame.go(request, visit, f"/console/webhooks/{webhook_id}", Flash(_SAVED))
            return self._changed_meanwhile(request, visit, webhook, sent)
        problems = {**self._webhooks.problems_of(wanted, webhook), **problems}
        if problems:
            return self._form(request, visit, _with_problems(visit, problems), webhook, status=422)
        try:
            changed = await self._webhooks.update(
                workspace_id, webhook_id, wanted, only=only, by=actor_of(visit.caller)
            )
        except ChangedError:
            webhook = await self._webhooks.get(workspace_id, webhook_id)
            return self._changed_meanwhile(request, visit, webhook, sent)
        flash = Flash(webhook_form.with_warnings(_SAVED, changed.warnings, changed.webhook))
        return self._frame.go(request, visit, page_after(changed), flash)

    async def add_events(self, request: web.Request, visit: Visit) -> web.Response:
        """Add event types to those that a webhook receives."""
        workspace_id, webhook_id = visit.caller.workspace_id, request.match_info["id"]
        location = f"/console/webhooks/{webhook_id}"
        webhook = await self._webhooks.get(workspace_id, webhook_id)
        before = webhook.subscription.events
        wanted = webhook_form.chosen_events(visit.form)
        if not wanted:
            return self._frame.go(request, visit, location, Flash("No event type was ticked.", "warn"))
        events = wanted if wanted == [webhook_form.ALL_EVENTS] else [*before, *wanted]
        try:
            await self._webhooks.update(
                workspace_id,
                webhook_id,
                {"events": events},
                only=(webhook.subscription.revision,),
                by=actor_of(visit.caller),
            )
        except InvalidInputError as error:
            return self._frame.go(request, visit, location, Flash(f"Nothing was added: {error}", "bad"))
        except ChangedError:
            flash = Flash("Nothing was added: somebody else changed the webhook just then. Look, and try again.", "bad")
            return self._frame.go(request, visit, location, flash)
        added = [each for each in events if each not in before]
        return self._frame.go(request, visit, location, Flash(f"It now receives {', '.join(added)} too."))

    def _changed_meanwhile(
        self, request: web.Request, visit: Visit, webhook: Webhook, sent: dict[str, Any]
    ) -> web.Response:
        """Show what was typed beside what somebody else saved; saving again is meant for the new version."""
        typed = webhook_form.typed(visit.form)
        state = FormState(
            typed.values,
            typed.events,
            to_type_again(visit.form),
            revision=str(webhook.subscription.revision),
            conflicts=webhook_form.conflicts(sent, webhook),
            overtaken=True,
        )
        return self._form(request, visit, state, webhook, status=409)

    def _form(
        self, request: web.Request, visit: Visit, state: FormState, webhook: Webhook | None, *, status: int = 200
    ) -> web.Response:
        values = {
            "state": state,
            "webhook": webhook,
            "groups": webhook_form.groups(self._catalogue),
            "methods": [(each, each) for each in webhook_form.METHODS],
            "content_types": [(each, each) for each in webhook_form.CONTENT_TYPES],
            "payload_formats": webhook_form.PAYLOAD_FORMATS,
            "api_key_headers": webhook_form.API_KEY_HEADERS,
        }
        return self._frame.page(request, visit, "webhook_form.html", values, status=status)


def _with_problems(visit: Visit, problems: dict[str, str]) -> FormState:
    told = {**to_type_again(visit.form), **webhook_form.field_problems(problems)}
    return webhook_form.typed(visit.form, told)
