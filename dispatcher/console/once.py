"""A form that arrives twice, by a second click or a reload, is done once; the second is led where the first was."""

import dataclasses
from urllib.parse import urlencode

import orjson
from aiohttp import web

from dispatcher.console.forms import FORM_ID, Refusal, content_of
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Flash
from dispatcher.operations.idempotency import (
    WAIT_SECONDS,
    Begun,
    FinalAnswer,
    Idempotency,
    OtherRequest,
    UnderWay,
)

LEFT_FLASH = web.ResponseKey("flash", Flash)
"""Where a response has what the page that it leads to says."""

_MAX_ID_CHARS = 64


class Once:
    """Does forms once; the idempotency keys are the pages' form ids.

    Args:
        idempotency: That of the API.
    """

    def __init__(self, idempotency: Idempotency) -> None:
        self._idempotency = idempotency

    async def done(
        self, request: web.Request, visit: Visit, page: Page
    ) -> web.StreamResponse | tuple[str, Flash | None]:
        """Do what a form asks for, or tell where it led when it was done.

        Returns:
            The page's response; or, of a form that was done before, the location and what is said there.

        Raises:
            Refusal: It is being done for long already, or was sent before with something else in it.
            UnavailableError: What was done can't be looked up; nothing is done now.
        """
        form_id = visit.form.get(FORM_ID, "")
        if not page.once or not form_id or len(form_id) > _MAX_ID_CHARS:
            return await page.handler(request, visit)
        asked = f"{request.query_string}\n{urlencode(content_of(visit.form))}".encode("utf-8", "surrogatepass")
        call = f"POST {request.path}"
        found = await self._idempotency.begin_when_free(
            visit.caller.workspace_id, call, form_id, asked, wait_seconds=WAIT_SECONDS
        )
        match found:
            case FinalAnswer():
                flash = orjson.loads(found.body)
                return found.headers["Location"], None if flash is None else Flash(**flash)
            case UnderWay():
                raise Refusal(409, "What this form asks for is still being done. Look in a while whether it was.")
            case OtherRequest():
                raise Refusal(
                    409,
                    "This form was sent before with something else in it, and that was done. Look what came of it; "
                    "to ask for something else, open the form again.",
                )
            case Begun():
                return await self._do(found, request, visit, page)

    async def _do(self, begun: Begun, request: web.Request, visit: Visit, page: Page) -> web.StreamResponse:
        try:
            response = await page.handler(request, visit)
        except Exception:
            await self._idempotency.abandon(begun)
            raise
        flash = response.get(LEFT_FLASH)
        if "Location" not in response.headers or (flash is not None and flash.kind == "bad"):
            # Nothing was done: the same form may do better later.
            await self._idempotency.abandon(begun)
            return response
        body = orjson.dumps(None if flash is None else dataclasses.asdict(flash))
        answer = FinalAnswer(response.status, {"Location": response.headers["Location"]}, body)
        await self._idempotency.finish(begun, answer)
        return response
