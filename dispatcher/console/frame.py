"""What stands around every page: who is signed in, whether a form is ours, and what becomes of errors."""

import contextlib
import traceback
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import MultiDict

from dispatcher.console.drawing import SECURITY_HEADERS, Drawing
from dispatcher.console.forms import FORM_ID, SECRETS, TOKEN, Refusal, check_token, content_of, read_fields
from dispatcher.console.once import LEFT_FLASH, Once
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import (
    FLASH_SECONDS,
    SESSION_SECONDS,
    SIGN_IN_SECONDS,
    Flash,
    Session,
    Sessions,
    shortened,
)
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
SECRET_COOKIE = "dispatcher_shown_once"  # noqa: S105 - a name
"""Of one webhook's page: its path keeps two webhooks' secrets apart."""
LIVE_HEADER = "X-Live"
"""Sent by the script when it looks again at a page: that isn't the reader's seeing it."""

_MAX_FLASH_TEXT = 400
_MAX_PATH_CHARS = 256
_log = structlog.get_logger(__name__)


class Frame:
    """Serves pages to those who are signed in.

    Args:
        keys: The API keys.
        limits: Of requests and of guesses; those of the API.
        sessions: Makes and reads cookies.
        drawing: Draws pages.
        once: Does forms once.
    """

    def __init__(self, keys: ApiKeys, limits: RateLimits, sessions: Sessions, drawing: Drawing, once: Once) -> None:
        self._keys = keys
        self._limits = limits
        self._sessions = sessions
        self._drawing = drawing
        self._once = once

    def serve(self, page: Page) -> Handler:
        """Make the handler of a page: only who is signed in and may see it gets there."""

        async def handle(request: web.Request) -> web.StreamResponse:
            session = self.session_of(request)
            if session is None or not session.signed_in:
                return await self._to_sign_in(request)
            try:
                caller = await self._keys.recognise(session.key_digest)
            except UnauthorizedError:
                return await self._to_sign_in(request)
            visit = Visit(session, caller, form_id=self._sessions.form_id())
            return await self._answered(request, visit, page)

        return handle

    async def _answered(self, request: web.Request, visit: Visit, page: Page) -> web.StreamResponse:
        visit = self._with_flashes(request, visit)
        try:
            self._limits.take_request(visit.caller)
            _check_scope(visit.caller, page.scope)
            response = await (
                self._done(request, visit, page) if page.method == "POST" else page.handler(request, visit)
            )
        except Exception as error:  # noqa: BLE001 - the last line: whoever asked gets a page, the log the cause
            response = self._of_error(request, visit, error)
        if visit.flash is not None and FLASH_COOKIE not in response.cookies:
            response.del_cookie(FLASH_COOKIE, path=HOME)
        if visit.secret is not None and response.status == HTTPStatus.OK:
            # Whatever else came, such as an overload's page, did not show it.
            response.del_cookie(SECRET_COOKIE, path=request.path)
        if page.method == "POST":
            _note(request, visit.caller, response.status)
        return response

    async def _done(self, request: web.Request, visit: Visit, page: Page) -> web.StreamResponse:
        form = await read_fields(request)
        try:
            check_token(form, visit.session)
        except Refusal:
            # Only a browser's own word that one of our pages sent it makes it more than a stranger's form.
            if content_of(form) and request.headers.get("Sec-Fetch-Site") == "same-origin":
                return self._kept(request, visit, form)
            raise
        visit = replace(visit, form=form)
        found = await self._once.done(request, visit, page)
        return self.go(request, visit, *found) if isinstance(found, tuple) else found

    def session_of(self, request: web.Request, *, cookie_name: str = SESSION_COOKIE) -> Session | None:
        """Return the session that a request came with, if it is still good."""
        cookie = request.cookies.get(cookie_name)
        return None if cookie is None else self._sessions.read(cookie)

    def _with_flashes(self, request: web.Request, visit: Visit) -> Visit:
        if request.method != "GET" or LIVE_HEADER in request.headers:
            return visit
        secret = self._flash_of(request, visit, SECRET_COOKIE)
        if secret is not None and request.path != _path_of(secret):
            secret = None
        return replace(visit, flash=self._flash_of(request, visit, FLASH_COOKIE), secret=secret)

    def _flash_of(self, request: web.Request, visit: Visit, cookie_name: str) -> Flash | None:
        cookie = request.cookies.get(cookie_name)
        return None if cookie is None else self._sessions.read_flash(visit.session, cookie)

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
            response[LEFT_FLASH] = flash
            cookie = self._sessions.write_flash(visit.session, shortened(flash, _MAX_FLASH_TEXT))
            # A secret's cookie is that of its page: what other forms leave to be said doesn't take its place.
            name, path = (SECRET_COOKIE, _path_of(flash)) if flash.secret else (FLASH_COOKIE, HOME)
            set_cookie(request, response, name, cookie, seconds=FLASH_SECONDS, path=path)
        return response

    def keep(self, request: web.Request, response: web.Response, session: Session) -> None:
        """Send a session's cookie along."""
        name, seconds = (SESSION_COOKIE, SESSION_SECONDS) if session.signed_in else (SIGN_IN_COOKIE, SIGN_IN_SECONDS)
        set_cookie(request, response, name, self._sessions.write(session), seconds=seconds)

    def problem(self, request: web.Request, visit: Visit | None, status: int, text: str) -> web.Response:
        """Draw the page that says why there is no other."""
        return self._drawing.problem(request, visit, status, text)

    async def _to_sign_in(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            with contextlib.suppress(Refusal):
                form = await read_fields(request)
                if content_of(form):
                    return self._kept(request, None, form)
        then = f"?next={quote(request.path_qs, safe='/')}" if request.method in {"GET", "HEAD"} else ""
        return web.Response(status=303, headers={**SECURITY_HEADERS, "Location": f"{SIGN_IN}{then}"})

    def _kept(self, request: web.Request, visit: Visit | None, form: MultiDict[str]) -> web.Response:
        """Draw what was typed, to be sent again: nobody is signed in any more, or somebody else."""
        values = {
            "caller": None if visit is None else visit.caller,
            "action": request.path_qs,
            "token": form.get(TOKEN, "") if visit is None else visit.session.form_token,
            "form_id": form.get(FORM_ID, ""),
            "fields": [(name, value) for name, value in content_of(form) if name not in SECRETS],
            "again": [name for name in SECRETS if form.get(name)],
        }
        return self._drawing.page(request, None, "kept.html", values, status=401 if visit is None else 403)

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


def set_cookie(
    request: web.Request, response: web.Response, name: str, value: str, *, seconds: int, path: str = HOME
) -> None:
    """Set a cookie that no script reads and no other site sends; over TLS only, where the page came over TLS."""
    # Several proxies write a list; its first is what the browser spoke.
    forwarded = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower() == "https"
    response.set_cookie(
        name, value, max_age=seconds, path=path, httponly=True, samesite="Lax", secure=request.secure or forwarded
    )


def _path_of(secret: Flash) -> str:
    return f"{HOME}/webhooks/{secret.about}"


def _note(request: web.Request, caller: ApiKey, status: int) -> None:
    _log.info("console", path=request.path[:_MAX_PATH_CHARS], status=status, api_key=caller.id)
