"""A name whose address changes to a forbidden one, by every way that a request leaves the dispatcher.

The workers, the API and the console ask a name server of the test's own. Each webhook's name first leads to the
receiver, then to an address on which something listens that no delivery may reach.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.worker import Worker
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.model import Webhook
from dispatcher.http.names import MAX_CACHE_SECONDS, Resolver
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.operations.api_keys import ApiKeys
from tests.contract.endpoints import NameServer, serving_names
from tests.deployment import Deployment, deploy, event, eventually, make_settings
from tests.fakes.console_stack import Browser
from tests.receiver import Answer
from tests.services import Services

INSIDE = "127.0.0.2"
OFTEN = {"headers": {"Connection": "close"}}
SPAN = {"since": "2020-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"}


@dataclass
class Site:
    """A running dispatcher, and what stands around it.

    Attributes:
        names: The name server that everything asks.
        inside: Connections to the address that nothing may connect to.
        moved_seconds: How far the resolvers' clocks are ahead, so that they ask again.
    """

    deployment: Deployment
    worker: Worker
    client: TestClient
    names: NameServer
    inside: list[Any]
    moved_seconds: float = 0

    def flip(self, workspace: str) -> None:
        """Let the name of a workspace's webhook lead inside from now on."""
        self.names.addresses[_name(workspace)] = [INSIDE]
        self.moved_seconds += MAX_CACHE_SECONDS + 1

    async def webhook(self, workspace: str, **fields: Any) -> Webhook:
        """Make a webhook whose name leads to the receiver for now."""
        name, path = _name(workspace), f"/{workspace}"
        self.names.addresses[name] = ["127.0.0.1"]
        url = f"http://{name}:{self.deployment.receiver.port}{path}"
        return await self.deployment.webhook_known_to(self.worker, path, workspace, url=url, **fields)

    def answer(self, workspace: str, status: int) -> None:
        """Set what the receiver answers; it keeps no connection."""
        self.deployment.receiver.answer(f"/{workspace}", Answer(status, **OFTEN))

    async def send(self, workspace: str) -> None:
        """Publish an event of the workspace."""
        await self.deployment.publish(event(workspace, workspace=workspace))

    async def key(self, workspace: str) -> str:
        """Make an API key that may read and write."""
        keys = ApiKeys(MongoApiKeys(self.deployment.connection.api_keys), SystemClock(), draw)
        return (await keys.create(workspace, "test", ("read", "write"), None)).plaintext


@dataclass
class Case:
    """One webhook of a workspace of its own."""

    site: Site
    workspace: str
    webhook: Webhook
    key: str

    @property
    def own(self) -> str:
        """Path of the webhook."""
        return f"/webhooks/{self.webhook.subscription.id}"

    async def call(self, method: str, path: str, **body: Any) -> Any:
        """Call the API."""
        sent = {"json": body} if body else {}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.site.client.request(method, f"/v1{path}", headers=headers, **sent) as response:
            assert response.status < 400, await response.text()
            return await response.json()

    async def until(self, *words: str) -> None:
        """Wait until the newest delivery shown begins its status and error with these words."""

        async def look() -> Any:
            rows = (await self.call("GET", f"{self.own}/deliveries"))["data"]
            return [f"{row['status']} {row['error'] or ''}" for row in rows]

        await eventually(look, lambda rows: any(row.startswith(words) for row in rows), f"a delivery is {words}")


async def _delivery(case: Case) -> None:
    case.site.flip(case.workspace)
    await case.site.send(case.workspace)


async def _retry(case: Case) -> None:
    def refuse(_: Any) -> Answer:
        case.site.flip(case.workspace)
        return Answer(503, **OFTEN)

    case.site.deployment.receiver.answer(f"/{case.workspace}", refuse)
    await case.site.send(case.workspace)


async def _test_event(case: Case) -> None:
    assert (await case.call("POST", f"{case.own}/test"))["status"] == "delivered"
    case.site.flip(case.workspace)
    await case.call("POST", f"{case.own}/test")


async def _console_button(case: Case) -> None:
    browser = Browser(case.site.client, {"all": case.key})
    await browser.sign_in()
    case.site.flip(case.workspace)
    page = await browser.get(f"{case.own}/test")
    assert page.status == 200, page.words
    page = await browser.post(f"{case.own}/test", {"type": "user.created"})
    assert page.status < 400, page.words


async def _redelivery(case: Case) -> None:
    await case.site.send(case.workspace)
    await case.until("delivered")
    case.site.flip(case.workspace)
    wanted = case.site.deployment.delivery_id(f"evt_{case.workspace}", case.webhook)
    await case.call("POST", f"{case.own}/deliveries/{wanted}/redeliver")


async def _replay(case: Case) -> None:
    await case.site.send(case.workspace)
    await case.until("delivered")
    case.site.flip(case.workspace)
    await case.call("POST", f"{case.own}/replay", **SPAN)


async def _backfill(case: Case) -> None:
    await case.call("PATCH", case.own, status="inactive")
    index, webhook_id = case.site.worker.index, case.webhook.subscription.id
    await eventually(
        _later(lambda: index.get(webhook_id).status), lambda status: status == "inactive", "it is inactive"
    )
    await case.site.send(case.workspace)
    await case.site.deployment.until_done("source")
    await case.call("PATCH", case.own, status="active")
    await eventually(_later(lambda: index.get(webhook_id).status), lambda status: status == "active", "it is active")
    case.site.flip(case.workspace)
    await case.call("POST", f"{case.own}/replay", **SPAN, source="events")


async def _dead_letter_replay(case: Case) -> None:
    case.site.answer(case.workspace, 500)
    await case.call("PATCH", case.own, max_attempts=1)
    index, webhook_id = case.site.worker.index, case.webhook.subscription.id
    await eventually(_later(lambda: index.get(webhook_id).max_attempts), lambda most: most == 1, "one attempt only")
    await case.site.send(case.workspace)
    await case.until("failed the endpoint answered 500")
    case.site.flip(case.workspace)
    await case.call("POST", "/dead-letters/replay", reason="attempts_exhausted")


def _later(ask: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def asked() -> Any:
        return ask()

    return asked


def _name(workspace: str) -> str:
    return f"{workspace}.rebind.example".replace("_", "-")


WAYS: dict[str, Callable[[Case], Awaitable[None]]] = {
    "delivery": _delivery,
    "retry": _retry,
    "test event": _test_event,
    "test button of the console": _console_button,
    "redelivery": _redelivery,
    "replay": _replay,
    "backfill": _backfill,
    "replay of dead letters": _dead_letter_replay,
}


@pytest.fixture(scope="module")
async def site(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Site]:
    """A dispatcher that may reach 127.0.0.1 and nothing else of the loopback, on names of the test's own."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("rebind"))
    outside = (ip_network("127.0.0.1/32"),)
    settings = replace(settings, send=replace(settings.send, allowed_networks=outside))
    inside: list[Any] = []

    def moved() -> float:
        return time.monotonic() + made[0].moved_seconds if made else time.monotonic()

    made: list[Site] = []
    async with contextlib.AsyncExitStack() as stack:
        names = await stack.enter_async_context(serving_names())
        names.ttl = 0
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        resolver = functools.partial(Resolver, nameservers=[names.address])
        patch.setattr("dispatcher.http.sender.Resolver", lambda clock: resolver(clock=moved))
        deployment = await stack.enter_async_context(deploy(settings))

        async def arrive(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inside.append(writer)
            writer.close()

        server = await asyncio.start_server(arrive, INSIDE, deployment.receiver.port)
        stack.callback(server.close)
        worker = await stack.enter_async_context(deployment.worker())
        app = build_api(settings, deployment.connection)
        client = await stack.enter_async_context(TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)))
        made.append(Site(deployment, worker, client, names, inside))
        yield made[0]


@pytest.fixture
async def case(site: Site, workspace: str) -> Case:
    """A webhook that answers 200, in a workspace of the test's own."""
    site.inside.clear()
    site.answer(workspace, 200)
    webhook = await site.webhook(workspace, max_attempts=2)
    return Case(site, workspace, webhook, await site.key(workspace))


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_send_checks_the_address_again(case: Case, way: str) -> None:
    """A name that leads inside by now is refused with the reason in the log, and nothing connects."""
    await WAYS[way](case)
    await case.until("failed forbidden_address: ", "retrying forbidden_address: ")
    assert case.site.inside == []


@pytest.mark.parametrize("way", WAYS)
async def test_without_the_check_every_way_reaches_inside(
    case: Case, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with the check of addresses taken out, connects to the forbidden address: so it is what protects."""
    monkeypatch.setattr(AddressPolicy, "check_address", lambda _, __: None)
    await WAYS[way](case)
    await eventually(_later(lambda: len(case.site.inside)), bool, "something connects inside")
