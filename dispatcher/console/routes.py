"""What a page is: where it stands, what it takes to see it, and who draws it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from multidict import MultiDict, MultiMapping

from dispatcher.console.sessions import Flash, Session
from dispatcher.operations.api_keys import allows
from dispatcher.ports import ApiKey


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in.

    Attributes:
        session: The browser's.
        caller: The API key.
        form: What a form sent, its token checked; empty for a page that is only looked at.
        flash: What the page before left to be said.
        secret: The signing secret that this page shows, this once.
        form_id: What the forms of the page that is drawn now carry.
    """

    session: Session
    caller: ApiKey
    form: MultiMapping[str] = field(default_factory=MultiDict)
    flash: Flash | None = None
    secret: Flash | None = None
    form_id: str = ""

    @property
    def may_write(self) -> bool:
        """Whether buttons that change something would work."""
        return allows(self.caller, "write")


Handler = Callable[[web.Request, Visit], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page, or one form's target.

    Attributes:
        method: `GET` to look, `POST` to change; a POST is answered with a redirection, or with the form again.
        path: Under `/console`; `{name}` stands for one segment.
        handler: Draws it.
        scope: What the API key must have.
        once: Whether a form that arrives twice is done once. One that isn't must bear it.
    """

    method: str
    path: str
    handler: Handler
    scope: str = "read"
    once: bool = True
