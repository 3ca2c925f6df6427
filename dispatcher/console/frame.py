"""What stands around every page: who is signed in, whether a form is ours, and what becomes of errors."""

import asyncio
import hmac
import traceback
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import MultiDict

from dispatcher.console.drawing import SECURITY_HEADERS, Drawing
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import SESSION_SECONDS, SIGN_IN_SECONDS, Flash, Session, Sessions, shortened
from dispatcher.core.errors import (
    ConflictError,
    GoneError,
    InvalidInputError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from dispatcher.operations.api_keys import ApiKeys, allows
from dispatcher.operations.rate_limits import RateLimits
from dispatcher.ports import ApiKey

HOME = "/console"
SIGN_IN = "/console/sign-in"
SESSION_COOKIE = "dispatcher_session"
SIGN_IN_COOKIE = "dispatcher_sign_in"
"""Beside the session's: who opens the sign-in page stays signed in."""
FLASH_COOKIE = "dispatcher_flash"
TOKEN = "token"  # noqa: S105 - a field's name
LIVE_HEADER = "X-Live"
"""Sent by the script when it looks again at a page: that isn't the reader's seeing it."""
MAX_FORM_BYTES = 64 * 1024
MAX_FORM_FIELDS = 500
FORM_SECONDS = 10

_MAX_FLASH_TEXT = 400
_MAX_PATH_CHARS = 256
_OWN_SITES = frozenset({"same-origin", "none"})
_log = structlog.get_logger(__name__)


class Refusal(Exception):  # noqa: N818 - an answer more than an error
    """A request that ends with a page that says why.

    Args:
        status: 4xx.
        text: What is wrong, and what to do.
    """

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


class Frame:
    """Serves pages to those who are signed in.

    Args:
        keys: The API keys.
        limits: Of requests and of guesses; those of the API.
        sessions: Makes and reads cookies.
        drawing: Draws pages.
    """

    def __init__(self, keys: ApiKeys, limits: RateLimits, sessions: Sessions, drawing: Drawing) -> None:
        self._keys = keys
        self._limits = limits
        self._sessions = sessions
        self._drawing = drawing

    def serve(self, page: Page) -> Handler:
        """Make the handler of a page: only who is signed in and may see it gets there."""

        async def handle(request: web.Request) -> web.StreamResponse:
            session = self.session_of(request)
            if session is None or not session.signed_in:
                return self._to_sign_in(request)
            try:
                caller = await self._keys.recognise(session.key_digest)
            except UnauthorizedError:
                return self._to_sign_in(request)
            visit = Visit(session, caller)
            return await self._answered(request, visit, page)

        return handle

    async def _answered(self, request: web.Request, visit: Visit, page: Page) -> web.StreamResponse:
        visit, spent = self._with_flash(request, visit)
        try:
            self._limits.take_request(visit.caller)
            _check_scope(visit.caller, page.scope)
            if page.method == "POST":
                visit = replace(visit, form=await self.read_form(request, visit.session))
            response = await page.handler(request, visit)
        except Exception as error:  # noqa: BLE001 - the last line: whoever asked gets a page, the log the cause
            response = self._of_error(request, visit, error)
        if spent and FLASH_COOKIE not in response.cookies:
            response.del_cookie(FLASH_COOKIE, path=HOME)
        if page.method == "POST":
            _note(request, visit.caller, response.status)
        return response

    def session_of(self, request: web.Request, *, cookie_name: str = SESSION_COOKIE) -> Session | None:
        """Return the session that a request came with, if it is still good."""
        cookie = request.cookies.get(cookie_name)
        return None if cookie is None else self._sessions.read(cookie)

    def _with_flash(self, request: web.Request, visit: Visit) -> tuple[Visit, bool]:
        cookie = request.cookies.get(FLASH_COOKIE)
        if cookie is None or request.method != "GET" or LIVE_HEADER in request.headers:
            return visit, False
        flash = self._sessions.read_flash(visit.session, cookie)
        if flash is not None and flash.about and flash.about not in request.path:
            # A secret waits for the page that it belongs to, whatever else is opened before.
            return visit, False
        return replace(visit, flash=flash), True

    async def read_form(self, request: web.Request, session: Session | None) -> MultiDict[str]:
        """Read a form and see that it is one of ours, sent from one of our pages.

        Raises:
            Refusal: It isn't, or it is too large, too slow or no form.
        """
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OWN_SITES:
            raise Refusal(403, "This form was sent from another site. Open the console and try it from there.")
        if request.content_type != "application/x-www-form-urlencoded":
            raise Refusal(415, "Only forms of the console are taken here.")
        if request.content_length is None:
            raise Refusal(411, "Send the form with its length.")
        if request.content_length > MAX_FORM_BYTES:
            raise Refusal(413, f"The form is larger than {MAX_FORM_BYTES // 1024} KiB. Make its texts shorter.")
        try:
            async with asyncio.timeout(FORM_SECONDS):
                body = await request.read()
            pairs = parse_qsl(
                body.decode("utf-8", "replace"),
                keep_blank_values=True,
                max_num_fields=MAX_FORM_FIELDS,
                errors="replace",
            )
        except TimeoutError:
            raise Refusal(408, "The form took too long to arrive. Send it again.") from None
        except ValueError:
            raise Refusal(413, f"The form has more than {MAX_FORM_FIELDS} fields.") from None
        form = MultiDict((name, value.replace("\r\n", "\n")) for name, value in pairs)
        token = form.popone(TOKEN, "")
        if session is None or not hmac.compare_digest(token.encode(), session.token.encode()):
            raise Refusal(
                403, "This page was open for too long, or in another session. Go back, reload it and try again."
            )
        return form

    def page(
        self,
        request: web.Request,
        visit: Visit,
        template: str,
        values: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
    ) -> web.Response:
        """Draw a page; see `Drawing.page`."""
        return self._drawing.page(request, visit, template, values, status=status)

    def go(self, request: web.Request, visit: Visit, location: str, flash: Flash | None = None) -> web.Response:
        """Send the browser to another page after a change, which says what was done.

        Source: RFC 9110 section 15.4.4 (303 See Other).
        """
        response = web.Response(status=303, headers={**SECURITY_HEADERS, "Location": location})
        if flash is not None:
            cookie = self._sessions.write_flash(visit.session, shortened(flash, _MAX_FLASH_TEXT))
            set_cookie(request, response, FLASH_COOKIE, cookie, seconds=SIGN_IN_SECONDS)
        return response

    def keep(self, request: web.Request, response: web.Response, session: Session) -> None:
        """Send a session's cookie along."""
        name, seconds = (SESSION_COOKIE, SESSION_SECONDS) if session.signed_in else (SIGN_IN_COOKIE, SIGN_IN_SECONDS)
        set_cookie(request, response, name, self._sessions.write(session), seconds=seconds)

    def problem(self, request: web.Request, visit: Visit | None, status: int, text: str) -> web.Response:
        """Draw the page that says why there is no other."""
        return self._drawing.problem(request, visit, status, text)

    def _to_sign_in(self, request: web.Request) -> web.Response:
        then = f"?next={quote(request.path_qs, safe='/')}" if request.method in {"GET", "HEAD"} else ""
        return web.Response(status=303, headers={**SECURITY_HEADERS, "Location": f"{SIGN_IN}{then}"})

    def of_error(self, request: web.Request, error: Exception) -> web.Response:
        """Draw the page of an error that was met outside a visit."""
        return self._of_error(request, None, error)

    def _of_error(self, request: web.Request, visit: Visit | None, error: Exception) -> web.Response:
        status, text = _told(error)
        response = self.problem(request, visit, status, text)
        if isinstance(error, TooManyRequestsError):
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            # As text: a renderer given the exception itself may show local variables, and those hold secrets.
            trace = "".join(traceback.format_exception(error))
            _log.error("page failed", method=request.method, path=request.path[:_MAX_PATH_CHARS], traceback=trace)
        elif isinstance(error, UnavailableError):
            _log.warning("unavailable", error=str(error))
        return response


_FAULT = "This is a fault of the service. Tell its operator the request's id, and try again."
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (GoneError, 410),
    (ConflictError, 409),
    (TooManyRequestsError, 429),
    (UnauthorizedError, 403),
)


def _told(error: Exception) -> tuple[int, str]:
    """Say which status and which words an error ends in."""
    match error:
        case Refusal():
            return error.status, error.text
        case NotFoundError() | web.HTTPNotFound():
            return 404, "There is nothing here, or nothing any more: it may have been deleted. Go on from the menu."
        case web.HTTPException():
            return error.status, f"{sentence(error.reason)} Go on from the menu."
        case InvalidInputError():
            return 422, "; ".join(f"{name} {problem}" for name, problem in error.fields.items())
        case UnavailableError():
            return 503, sentence(error.shown) or "The service can't reach its database. Reload the page in a while."
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    return status, _FAULT if status == HTTPStatus.INTERNAL_SERVER_ERROR else sentence(str(error))


def _check_scope(caller: ApiKey, scope: str) -> None:
    if not allows(caller, scope):
        raise Refusal(403, f"Your API key lacks the scope {scope}. Sign in with one that has it.")


def sentence(text: str) -> str:
    """Write an error's text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if not text or text.endswith(".") else ".")


def set_cookie(request: web.Request, response: web.Response, name: str, value: str, *, seconds: int) -> None:
    """Set a cookie that no script reads and no other site sends; over TLS only, where the page came over TLS."""
    forwarded = request.headers.get("X-Forwarded-Proto", "").lower() == "https"
    response.set_cookie(
        name, value, max_age=seconds, path=HOME, httponly=True, samesite="Lax", secure=request.secure or forwarded
    )


def _note(request: web.Request, caller: ApiKey, status: int) -> None:
    _log.info("console", path=request.path[:_MAX_PATH_CHARS], status=status, api_key=caller.id)
