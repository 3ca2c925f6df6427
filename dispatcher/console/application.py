"""Put the console together."""

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dispatcher.console.action_pages import ActionPages
from dispatcher.console.assets import Assets
from dispatcher.console.dead_letter_pages import DeadLetterPages
from dispatcher.console.delivery_pages import DeliveryPages
from dispatcher.console.drawing import SECURITY_HEADERS, Drawing
from dispatcher.console.event_type_pages import EventTypePages
from dispatcher.console.frame import HOME, Frame
from dispatcher.console.once import Once
from dispatcher.console.overview_pages import OverviewPages
from dispatcher.console.replay_pages import ReplayPages
from dispatcher.console.routes import Page
from dispatcher.console.sessions import Sessions
from dispatcher.console.sign_in import SignIn
from dispatcher.console.webhook_pages import WebhookPages
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.model import RetryTier
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.idempotency import Idempotency
from dispatcher.operations.inspection import Inspections
from dispatcher.operations.overview import Overviews
from dispatcher.operations.rate_limits import RateLimits
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.replays import Replays
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import Clock


@dataclass(frozen=True, slots=True)
class ConsoleOperations:
    """What the pages ask."""

    keys: ApiKeys
    webhooks: Webhooks
    deliveries: Deliveries
    catalogue: Catalogue
    tests: EventTests
    rotation: SecretRotation
    redeliveries: Redeliveries
    inspections: Inspections
    replays: Replays
    letters: DeadLetters
    overviews: Overviews
    clock: Clock
    tiers: tuple[RetryTier, ...]


def all_pages(frame: Frame, operations: ConsoleOperations) -> tuple[Page, ...]:
    """List every page of those who are signed in; of two that fit a path, the first counts."""
    webhooks, deliveries, catalogue = operations.webhooks, operations.deliveries, operations.catalogue
    log = DeliveryPages(
        frame, webhooks, deliveries, operations.redeliveries, operations.inspections, catalogue, operations.tiers
    )
    return (
        *OverviewPages(frame, operations.overviews, webhooks, operations.letters, catalogue).pages(),
        *WebhookPages(frame, webhooks, deliveries, catalogue, operations.clock).pages(),
        *ActionPages(frame, webhooks, operations.tests, deliveries, operations.rotation, catalogue).pages(),
        *log.pages(),
        *DeadLetterPages(frame, operations.letters, webhooks, catalogue, operations.clock).pages(),
        *ReplayPages(frame, operations.replays, webhooks, operations.clock).pages(),
        *EventTypePages(frame, catalogue).pages(),
    )


def make_console(
    operations: ConsoleOperations, limits: RateLimits, sessions: Sessions, idempotency: Idempotency
) -> web.Application:
    """Make the console, to be mounted under `/console` of another application.

    Args:
        operations: What its pages ask.
        limits: Of requests and of guesses; those of the API, so that both count the same.
        sessions: Makes and reads cookies.
        idempotency: That of the API; does forms once.
    """
    assets = Assets()
    drawing = Drawing(assets)
    frame = Frame(operations.keys, limits, sessions, drawing, Once(idempotency))
    sign_in = SignIn(frame, operations.keys, limits, sessions, drawing)
    app = web.Application(middlewares=[_errors_as_pages(frame)])
    app.router.add_get("/static/{name}", assets.serve)
    for method, path, handler in sign_in.open_handlers():
        app.router.add_route(method, path, handler)
    _add(app, frame, (*sign_in.pages(), *all_pages(frame, operations)))
    app.router.add_get("/", _without_slash)
    app.router.add_get("/{elsewhere:.*}", frame.serve(Page("GET", "", _nothing_here)))
    return app


def _add(app: web.Application, frame: Frame, pages: Iterable[Page]) -> None:
    for page in pages:
        handler = frame.serve(page)
        if page.method == "GET":
            app.router.add_get(page.path, handler)
        else:
            app.router.add_route(page.method, page.path, handler)


async def _without_slash(request: web.Request) -> web.Response:
    query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
    return web.Response(status=303, headers={**SECURITY_HEADERS, "Location": f"{HOME}{query}"})


async def _nothing_here(_: web.Request, __: object) -> web.StreamResponse:
    raise web.HTTPNotFound


def _errors_as_pages(frame: Frame) -> Middleware:
    @web.middleware
    async def draw(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - the last line: whoever asked gets a page, the log the cause
            return frame.of_error(request, error)

    return draw
