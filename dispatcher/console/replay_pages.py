"""Replays: send a time's deliveries, or events that a webhook never got, again; and see how far that is."""

import contextlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from dispatcher.console.form_times import as_rfc3339
from dispatcher.console.frame import Frame, sentence
from dispatcher.console.paging import ROWS, cursor_of, links
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Flash
from dispatcher.core.delivery_log import TERMINAL, DeliveryStatus
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.reruns import UNFINISHED, ReplayJob
from dispatcher.operations.audit import actor_of
from dispatcher.operations.replays import Replays
from dispatcher.operations.times import rfc3339
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import Clock

SPANS = (
    ("3600", "the last hour"),
    ("86400", "the last 24 hours"),
    ("604800", "the last 7 days"),
    ("", "a time of my own"),
)


class ReplayPages:
    """The pages of replays.

    Args:
        frame: What stands around them.
        replays: The jobs.
        webhooks: Whose deliveries go out again.
        clock: Time.
    """

    def __init__(self, frame: Frame, replays: Replays, webhooks: Webhooks, clock: Clock) -> None:
        self._frame = frame
        self._replays = replays
        self._webhooks = webhooks
        self._clock = clock

    def pages(self) -> tuple[Page, ...]:
        """List them."""
        return (
            Page("GET", "/webhooks/{id}/replay", self.ask),
            Page("POST", "/webhooks/{id}/replay", self.create, "write"),
            Page("GET", "/replays", self.list),
            Page("GET", "/replays/{id}", self.show),
            Page("GET", "/replays/{id}/cancel", self.ask_cancel, "write"),
            Page("POST", "/replays/{id}/cancel", self.cancel, "write"),
        )

    async def ask(self, request: web.Request, visit: Visit) -> web.Response:
        """Show the form of a replay."""
        values = {"span": "3600", "source": "deliveries", "status": DeliveryStatus.FAILED.value}
        return await self._form(request, visit, values, {})

    async def create(self, request: web.Request, visit: Visit) -> web.Response:
        """Make a replay job and show how far it is."""
        sent = self._input(visit.form)
        try:
            job = await self._replays.create(
                visit.caller.workspace_id, request.match_info["id"], sent, by=actor_of(visit.caller)
            )
        except InvalidInputError as error:
            return await self._form(request, visit, visit.form, error.fields, status=422)
        except ConflictError as error:
            return await self._form(request, visit, visit.form, {"span": sentence(str(error))}, status=409)
        return self._frame.go(request, visit, f"/console/replays/{job.id}")

    async def list(self, request: web.Request, visit: Visit) -> web.Response:
        """List replays, newest first."""
        page = await self._replays.page(visit.caller.workspace_id, cursor_of(request), ROWS)
        rows = [(job, _done(job)) for job in page.rows]
        moving = any(job.status in UNFINISHED for job in page.rows)
        values = {"rows": rows, "moving": moving, **links(request, page, {})}
        return self._frame.page(request, visit, "replays.html", values)

    async def show(self, request: web.Request, visit: Visit) -> web.Response:
        """Show how far a replay is."""
        workspace_id = visit.caller.workspace_id
        job = await self._replays.get(workspace_id, request.match_info["id"])
        webhook = None
        if job.subscription_id:
            with contextlib.suppress(NotFoundError):
                webhook = await self._webhooks.get(workspace_id, job.subscription_id)
        unfinished = job.status in UNFINISHED
        values = {"job": job, "webhook": webhook, "done": _done(job), "unfinished": unfinished}
        return self._frame.page(request, visit, "replay.html", values)

    async def ask_cancel(self, request: web.Request, visit: Visit) -> web.Response:
        """Ask whether a replay is to end, and say how far it is."""
        job = await self._replays.get(visit.caller.workspace_id, request.match_info["id"])
        values = {"job": job, "done": _done(job), "unfinished": job.status in UNFINISHED}
        return self._frame.page(request, visit, "replay_cancel.html", values)

    async def cancel(self, request: web.Request, visit: Visit) -> web.Response:
        """End a replay."""
        replay_id = request.match_info["id"]
        try:
            await self._replays.cancel(visit.caller.workspace_id, replay_id, by=actor_of(visit.caller))
            flash = Flash("Cancelled: what was on its way already still goes out.")
        except ConflictError as error:
            flash = Flash(sentence(str(error)), "bad")
        return self._frame.go(request, visit, f"/console/replays/{replay_id}", flash)

    def _input(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return what the operation is asked for."""
        now_ms, span = self._clock.now_ms(), form.get("span", "")
        if span in {seconds for seconds, _ in SPANS if seconds}:
            times = {"since": rfc3339(now_ms - int(span) * 1000), "until": rfc3339(now_ms)}
        else:
            times = {"since": as_rfc3339(form.get("since", "")), "until": as_rfc3339(form.get("until", ""))}
        if form.get("source") == "events":
            return {**times, "source": "events"}
        return {**times, "status": form.get("status") or None}

    async def _form(
        self,
        request: web.Request,
        visit: Visit,
        values: Mapping[str, str],
        problems: Mapping[str, str],
        *,
        status: int = 200,
    ) -> web.Response:
        webhook = await self._webhooks.get(visit.caller.workspace_id, request.match_info["id"])
        shown = {
            "webhook": webhook,
            "values": values,
            "problems": problems,
            "spans": SPANS,
            "statuses": [("", "any that reached an end"), *((each.value, each.value) for each in sorted(TERMINAL))],
        }
        return self._frame.page(request, visit, "replay_form.html", shown, status=status)


def _done(job: ReplayJob) -> int:
    """Return how many of the selected are done with."""
    return sum(job.counts)
