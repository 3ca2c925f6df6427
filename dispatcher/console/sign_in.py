"""Sign in with an API key, and out again."""

import re

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from dispatcher.console.drawing import SECURITY_HEADERS, Drawing
from dispatcher.console.forms import Refusal, check_token, read_fields
from dispatcher.console.frame import FLASH_COOKIE, HOME, SESSION_COOKIE, SIGN_IN_COOKIE, Frame, sentence
from dispatcher.console.routes import Page, Visit
from dispatcher.console.sessions import Sessions
from dispatcher.core.errors import TooManyRequestsError, UnauthorizedError, UnavailableError
from dispatcher.operations.api_keys import ApiKeys, allows
from dispatcher.operations.authentication import identify
from dispatcher.operations.rate_limits import RateLimits

MAX_KEY_CHARS = 256

# Printable ASCII after the console's own path, so that no browser takes it for another site; and no step up from it.
_OWN_PATH = re.compile(r"(?![^?#]*(?:\.|%2[Ee]){2})/console(?:[/?][!-\[\]-~]*)?")
_log = structlog.get_logger(__name__)


class SignIn:
    """The sign-in page.

    Args:
        frame: What stands around it.
        keys: The API keys.
        limits: How many wrong keys an address may try; those of the API.
        sessions: Makes cookies.
        drawing: Draws the page.
    """

    def __init__(self, frame: Frame, keys: ApiKeys, limits: RateLimits, sessions: Sessions, drawing: Drawing) -> None:
        self._frame = frame
        self._keys = keys
        self._limits = limits
        self._sessions = sessions
        self._drawing = drawing

    def pages(self) -> tuple[Page, ...]:
        """List the pages of those who are signed in."""
        return (Page("POST", "/sign-out", self.sign_out, once=False),)

    def open_handlers(self) -> tuple[tuple[str, str, Handler], ...]:
        """List what everybody may see: method, path, handler."""
        return (("GET", "/sign-in", self.show), ("POST", "/sign-in", self.sign_in))

    async def show(self, request: web.Request) -> web.Response:
        """Ask for an API key."""
        return self._form(request, request.query.get("next", HOME), "")

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session with an API key."""
        then = HOME
        try:
            form = await read_fields(request)
            then = form.get("next", HOME)
            check_token(form, self._frame.session_of(request, cookie_name=SIGN_IN_COOKIE))
        except Refusal as refusal:
            return self._form(request, then, refusal.text, status=refusal.status)
        bearer = form.get("api_key", "").strip()[:MAX_KEY_CHARS]
        try:
            caller = await identify(self._keys, self._limits, bearer, request.remote or "")
        except UnauthorizedError as error:
            _log.warning("sign-in refused", address=request.remote, problem=str(error))
            return self._form(request, then, sentence(str(error)), status=401)
        except TooManyRequestsError as error:
            _log.warning("sign-in refused", address=request.remote, problem=str(error))
            return self._form(request, then, sentence(str(error)), status=429, retry_after=error.retry_after_seconds)
        except UnavailableError:
            return self._form(request, then, "The service can't reach its database. Try again in a while.", status=503)
        if not allows(caller, "read"):
            _log.warning("sign-in refused", address=request.remote, api_key=caller.id, problem="lacks the scope read")
            return self._form(request, then, "This API key lacks the scope read, which the console needs.", status=403)
        _log.info("signed in", address=request.remote, api_key=caller.id, workspace_id=caller.workspace_id)
        location = then if _OWN_PATH.fullmatch(then) else HOME
        response = web.Response(status=303, headers={**SECURITY_HEADERS, "Location": location})
        self._frame.keep(request, response, self._sessions.begin(bearer))
        response.del_cookie(SIGN_IN_COOKIE, path=HOME)
        return response

    async def sign_out(self, _: web.Request, __: Visit) -> web.Response:
        """End the session in this browser."""
        response = web.Response(status=303, headers={**SECURITY_HEADERS, "Location": f"{HOME}/sign-in"})
        response.del_cookie(SESSION_COOKIE, path=HOME)
        response.del_cookie(FLASH_COOKIE, path=HOME)
        return response

    def _form(
        self, request: web.Request, then: str, problem: str, *, status: int = 200, retry_after: int = 0
    ) -> web.Response:
        # The one that there is already stays good, for forms in other tabs.
        session = self._frame.session_of(request, cookie_name=SIGN_IN_COOKIE) or self._sessions.begin()
        values = {"token": session.form_token, "next": then, "problem": problem}
        response = self._drawing.page(request, None, "sign_in.html", values, status=status)
        if retry_after:
            response.headers["Retry-After"] = str(retry_after)
        self._frame.keep(request, response, session)
        return response
