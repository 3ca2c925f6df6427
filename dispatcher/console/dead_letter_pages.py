"""Dead letters: what failed for good and nobody dealt with; look into it, send it again, mark it as handled."""

import asyncio
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from aiohttp import web

from dispatcher.console.frame import Frame, sentence
from dispatcher.console.letter_selection import (
    CHOSEN_BY,
    COUNTED,
    DELIVERY,
    HOME,
    chosen_of,
    counts_of,
    filter_of,
    selection_of,
    wanted_of,
)
from dispatcher.console.paging import ROWS, cursor_of, filters_of, links
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Flash
from dispatcher.console.words import plural
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.delivery_log import LoggedAttempt, LoggedDelivery
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.model import DeadLetterReason, Status, Webhook
from dispatcher.operations.audit import actor_of
from dispatcher.operations.failed_deliveries import FILTERS, DeadLetters
from dispatcher.operations.replays import MAX_RATE, MIN_RATE
from dispatcher.operations.times import rfc3339
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import Clock

_NO_MORE = (
    "This is no dead letter, or none any more: it was sent again, or the delivery log keeps it no more. "
    "The delivery log of its webhook shows what became of it."
)


class DeadLetterPages:
    """The pages of dead letters.

    Args:
        frame: What stands around them.
        letters: The dead letters.
        webhooks: Whose they are.
        catalogue: Titles of event types.
        clock: Time.
    """

    def __init__(
        self, frame: Frame, letters: DeadLetters, webhooks: Webhooks, catalogue: Catalogue, clock: Clock
    ) -> None:
        self._frame = frame
        self._letters = letters
        self._webhooks = webhooks
        self._catalogue = catalogue
        self._clock = clock

    def pages(self) -> tuple[Page, ...]:
        """List them."""
        return (
            Page("GET", "/dead-letters", self.list),
            Page("GET", "/dead-letters/replay", self.ask_replay, "write"),
            Page("POST", "/dead-letters/replay", self.replay, "write"),
            Page("GET", "/dead-letters/handled", self.ask_handled, "write"),
            Page("POST", "/dead-letters/handled", self.mark_handled, "write"),
            Page("GET", "/dead-letters/{id}", self.show),
        )

    async def list(self, request: web.Request, visit: Visit) -> web.Response:
        """List dead letters, newest first, with counts; what the URL filters by is what its reader sees."""
        workspace_id, filters = visit.caller.workspace_id, filters_of(request, FILTERS)
        wanted, problems = wanted_of(filters)
        page, summary = await asyncio.gather(
            self._letters.page(workspace_id, wanted, cursor_of(request), ROWS),
            self._letters.summary(workspace_id, wanted),
        )
        counts = counts_of(summary, {} if problems else filters)
        ids = {row.subscription_id for row in page.rows} | {each.value for each in counts["Webhook"]}
        only = filters.get("subscription")
        hooks = await self._webhooks.some(workspace_id, ids if only is None else {*ids, only})
        values = {
            "rows": page.rows,
            "summary": summary,
            "counts": counts,
            "hooks": hooks,
            "types": self._catalogue.types,
            "reasons": list(DeadLetterReason),
            "filters": filters,
            "problems": problems,
            "chosen": f"?{urlencode(filters)}" if filters else "",
            "idle": "" if only is None or problems else _idle(hooks[only]),
            **links(request, page, filters),
        }
        return self._frame.page(request, visit, "dead_letters.html", values, status=422 if problems else 200)

    async def show(self, request: web.Request, visit: Visit) -> web.Response:
        """Show a dead letter: what the endpoint said, and every attempt."""
        workspace_id = visit.caller.workspace_id
        try:
            letter = await self._letters.get(workspace_id, request.match_info["id"])
        except NotFoundError:
            return self._frame.problem(request, visit, 404, _NO_MORE)
        hooks = await self._webhooks.some(workspace_id, {letter.subscription_id})
        attempts = _attempts(letter)
        chosen = urlencode({"subscription": letter.subscription_id, DELIVERY: letter.delivery_id})
        values = {
            "letter": letter,
            "attempts": attempts,
            "last": next((each for each in attempts if each.response_code), next(iter(attempts), None)),
            "hooks": hooks,
            "types": self._catalogue.types,
            "chosen": f"?{chosen}",
            "idle": _idle(hooks[letter.subscription_id]),
        }
        return self._frame.page(request, visit, "dead_letter.html", values)

    async def ask_replay(self, request: web.Request, visit: Visit) -> web.Response:
        """Ask whether a selection is to be sent again."""
        return await self._question(request, visit, "dead_letters_replay.html", self._asked(request), {})

    async def replay(self, request: web.Request, visit: Visit) -> web.Response:
        """Make the job that sends a selection again, and show how far it is."""
        chosen, rate = chosen_of(visit.form), visit.form.get("rate", "").strip()
        sent = {**selection_of(chosen), **({"rate": _number(rate)} if rate else {})}
        template, values = "dead_letters_replay.html", {"rate": rate}
        try:
            job = await self._letters.replay(visit.caller.workspace_id, sent, by=actor_of(visit.caller))
        except InvalidInputError as error:
            return await self._question(request, visit, template, chosen, values, error.fields, status=422)
        except ConflictError as error:
            problems = {"": sentence(str(error))}
            return await self._question(request, visit, template, chosen, values, problems, status=409)
        return self._frame.go(request, visit, f"/console/replays/{job.id}")

    async def ask_handled(self, request: web.Request, visit: Visit) -> web.Response:
        """Ask whether a selection is to be marked as handled."""
        return await self._question(request, visit, "dead_letters_handled.html", self._asked(request), {})

    async def mark_handled(self, request: web.Request, visit: Visit) -> web.Response:
        """Mark a selection as handled, and show what is left."""
        chosen = chosen_of(visit.form)
        try:
            handled = await self._letters.purge(
                visit.caller.workspace_id, selection_of(chosen), by=actor_of(visit.caller)
            )
        except InvalidInputError as error:
            template = "dead_letters_handled.html"
            return await self._question(request, visit, template, chosen, {}, error.fields, status=422)
        marked = f"{plural(handled.count, 'dead letter')} marked as handled."
        if handled.more:
            flash = Flash(f"{marked} There are more: mark these too to go on.", "warn")
            return self._frame.go(request, visit, _back(request, {}), flash)
        if not handled.count:
            flash = Flash("Nothing was marked: somebody else has dealt with them meanwhile.", "warn")
            return self._frame.go(request, visit, HOME, flash)
        return self._frame.go(request, visit, HOME, Flash(marked))

    def _asked(self, request: web.Request) -> dict[str, str]:
        """Return what a URL chooses, as of now: what fails later was never looked at by who answers the question."""
        chosen = filters_of(request, CHOSEN_BY)
        now = {} if DELIVERY in chosen or "until" in chosen else {"until": rfc3339(self._clock.now_ms())}
        return {**chosen, **now}

    async def _question(
        self,
        request: web.Request,
        visit: Visit,
        template: str,
        chosen: Mapping[str, str],
        values: Mapping[str, str],
        problems: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> web.Response:
        """Draw the page that says what would be done to which dead letters."""
        workspace_id, wanted = visit.caller.workspace_id, filter_of(chosen)
        summary = await self._letters.summary(workspace_id, wanted)
        counted = summary.by_webhook[:COUNTED]
        only = wanted.subscription_id
        hooks = await self._webhooks.some(workspace_id, {each.value for each in counted} | ({only} if only else set()))
        shown = {
            "summary": summary,
            "counted": counted,
            "hooks": hooks,
            "types": self._catalogue.types,
            "chosen": chosen,
            "wanted": wanted,
            "values": values,
            "problems": problems or {},
            "rates": (MIN_RATE, MAX_RATE),
            "back": _back(request, chosen),
            "idle": _idle(hooks[only]) if only else "",
        }
        return self._frame.page(request, visit, template, shown, status=status)


def _idle(webhook: Webhook | None) -> str:
    """Say why nothing would be sent to a webhook; empty where it would."""
    if webhook is None:
        return "deleted"
    return "" if webhook.subscription.status == Status.ACTIVE else str(webhook.subscription.status)


def _number(text: str) -> float | str:
    """Return a field's number; what is none stays text, for the operation to say so."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return text


def _back(request: web.Request, chosen: Mapping[str, str]) -> str:
    """Return where somebody goes who answers no."""
    if DELIVERY in chosen:
        return f"{HOME}/{quote(chosen[DELIVERY], safe='')}"
    filters = filters_of(request, FILTERS)
    return f"{HOME}?{urlencode(filters)}" if filters else HOME


def _attempts(letter: LoggedDelivery) -> list[LoggedAttempt]:
    """Return its attempts, the latest first."""
    return sorted(letter.attempts, key=lambda each: (each.run, each.attempt), reverse=True)
