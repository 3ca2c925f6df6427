# ruff: noqa: D102 - the ports say what each method promises
"""The console over stores in memory, and a browser without script that keeps cookies and sends forms."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any

from aiohttp import ClientResponse, CookieJar
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.console.application import ConsoleOperations, make_console
from dispatcher.console.sessions import Sessions
from dispatcher.core.delivery_log import LoggedDelivery, shown
from dispatcher.core.errors import UnavailableError
from dispatcher.core.retry import DEFAULT_TIERS
from dispatcher.core.sealing import Keyring
from dispatcher.core.topics import TopicNames
from dispatcher.operations.audit import Audit
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.idempotency import Idempotency
from dispatcher.operations.inspection import Inspections
from dispatcher.operations.overview import Overviews
from dispatcher.operations.rate_limits import Rate
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.test_events import EventTests
from dispatcher.ports import WaitingDelivery
from tests.fakes.api_stack import PLENTY, ApiStack, ManualClock, api_stack, draws
from tests.fakes.http import MemorySender
from tests.fakes.kafka import MemoryBroker
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryRecords, MemoryReplays
from tests.fakes.stores import (
    MemoryApiKeyStore,
    MemoryAuditStore,
    MemoryDeliveryLogReader,
    MemoryIdempotencyStore,
    MemoryWebhookStore,
    Outage,
)

_TOKEN = re.compile(r'name="token" value="([^"]+)"')
_FORM_ID = re.compile(r'name="form_id" value="([^"]+)"')


class WholeLog(MemoryDeliveryLogReader):
    """A `DeliveryLogReader` that also sees what was written to a log in memory."""

    def __init__(self, written: MemoryDeliveryLog, outage: Outage) -> None:
        super().__init__(outage)
        self._written = written

    async def get(self, workspace_id: str, subscription_id: str, delivery_id: str) -> LoggedDelivery | None:
        document = self._written.documents.get(delivery_id)
        if document is not None and document.workspace_id == workspace_id:
            return shown(document)
        return await super().get(workspace_id, subscription_id, delivery_id)


class MemoryStatistics:
    """A `DeliveryStatistics` that answers what a test decides.

    Attributes:
        found: Beginning of a part to status to count.
        took: What every part's attempts took.
        took_at: What those of one part took, by its beginning, where it isn't that.
        waits: What waits.
        asked: Subscription ids of each question.
        parts: Which part of each beginning was measured, and the limit.
        slow: Names of questions that take too long.
        held: Answers come once it is set.
    """

    def __init__(self, outage: Outage) -> None:
        self.outage = outage
        self.found: dict[int, dict[str, int]] = {}
        self.took: Sequence[float] = ()
        self.took_at: dict[int, Sequence[float]] = {}
        self.waits: Sequence[WaitingDelivery] = ()
        self.asked: list[Sequence[str]] = []
        self.parts: dict[int, tuple[float, int]] = {}
        self.slow: set[str] = set()
        self.held = asyncio.Event()
        self.held.set()

    async def _ask(self, name: str) -> None:
        await self.held.wait()
        self.outage.check()
        if name in self.slow:
            raise UnavailableError("MongoDB gave up", shown="There is too much. Ask for less.")

    async def counts(
        self, subscription_ids: Sequence[str], since_ms: int, until_ms: int, bucket_ms: int
    ) -> Mapping[int, Mapping[str, int]]:
        self.asked.append(subscription_ids)
        await self._ask("counts")
        return {at_ms: counts for at_ms, counts in self.found.items() if since_ms <= at_ms < until_ms}

    async def durations(
        self, subscription_ids: Sequence[str], since_ms: int, until_ms: int, part: float, limit: int
    ) -> Sequence[float]:
        await self._ask("durations")
        self.parts[since_ms] = part, limit
        return self.took_at.get(since_ms, self.took)

    async def waiting(self, subscription_ids: Sequence[str], since_ms: int, limit: int) -> Sequence[WaitingDelivery]:
        await self._ask("waiting")
        return self.waits[:limit]


@dataclass
class Seen:
    """A page as it came, after redirections.

    Attributes:
        status: Of the last response.
        path: Where it was, without the query.
        text: Its HTML.
        headers: Of the last response.
    """

    status: int
    path: str
    text: str
    headers: Mapping[str, str]

    @property
    def words(self) -> str:
        """Its text without tags, blanks made one."""
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", self.text))).strip()

    @property
    def token(self) -> str:
        """The token that its forms carry."""
        found = _TOKEN.search(self.text)
        assert found, self.words
        return found[1]

    @property
    def form_id(self) -> str:
        """The id that its forms carry; empty where it has none."""
        found = _FORM_ID.search(self.text)
        return found[1] if found else ""

    def value(self, field: str) -> str:
        """Return what stands in a field, or in a text area."""
        pattern = rf'<input[^>]* id="{field}"[^>]*? value="([^"]*)"|<textarea id="{field}"[^>]*>\n?([^<]*)</textarea>'
        found = re.search(pattern, self.text)
        assert found, f"no field {field}"
        return unescape(found[1] if found[1] is not None else found[2])


class Browser:
    """One browser: its cookies, and the last page."""

    def __init__(self, client: TestClient, keys: Mapping[str, str]) -> None:
        self.client = client
        self.keys = keys
        self.page = Seen(0, "", "", {})

    async def get(self, path: str, **options: Any) -> Seen:
        """Open a page."""
        return await self._seen(await self.client.get(f"/console{path}", **options))

    async def post(self, path: str, fields: Any = (), *, token: str | None = None, **options: Any) -> Seen:
        """Send a form of the last page, token and id included; `form_id` among the fields stands for another page's."""
        pairs = list(fields.items() if isinstance(fields, Mapping) else fields)
        pairs.append(("token", self.page.token if token is None else token))
        if self.page.form_id and "form_id" not in dict(pairs):
            pairs.append(("form_id", self.page.form_id))
        return await self._seen(await self.client.post(f"/console{path}", data=pairs, **options))

    async def sign_in(self, kind: str = "all") -> Seen:
        """Sign in with a key of the stack."""
        await self.get("/sign-in")
        seen = await self.post("/sign-in", {"api_key": self.keys.get(kind, kind)})
        assert seen.status == 200, seen.words
        return seen

    def cookie(self, name: str) -> str | None:
        """Return a cookie's value."""
        for cookie in self.client.session.cookie_jar:
            if cookie.key == name:
                return cookie.value
        return None

    async def _seen(self, response: ClientResponse) -> Seen:
        text = await response.text()
        self.page = Seen(response.status, response.url.path, text, response.headers)
        return self.page


@dataclass
class ConsoleStack:
    """A running console and what stands around it."""

    api: ApiStack
    browser: Browser
    sender: MemorySender
    records: MemoryRecords
    replays: MemoryReplays
    reader: WholeLog
    statistics: MemoryStatistics
    server: TestServer
    store: MemoryWebhookStore
    written: MemoryDeliveryLog
    key_store: MemoryApiKeyStore
    audit_store: MemoryAuditStore
    claims: MemoryIdempotencyStore


@asynccontextmanager
async def console_stack(*, requests: Rate = PLENTY, guesses: Rate = PLENTY) -> AsyncIterator[ConsoleStack]:
    """Run the console beside the API, over stores in memory; its browser isn't signed in."""
    outage, clock = Outage(), ManualClock()
    store, written = MemoryWebhookStore(outage), MemoryDeliveryLog()
    reader, statistics = WholeLog(written, outage), MemoryStatistics(outage)
    sender, records, keyring = MemorySender(), MemoryRecords(MemoryBroker()), Keyring([b"k" * 32])
    catalogue, replays = load_catalogue(None), MemoryReplays(clock, outage)
    names = TopicNames("webhooks", DEFAULT_TIERS)
    key_store, audit_store, claims = MemoryApiKeyStore(outage), MemoryAuditStore(outage), MemoryIdempotencyStore(outage)

    def add(app: Any, asked: Any, limits: Any, own: ManualClock) -> None:
        operations = ConsoleOperations(
            keys=asked.keys,
            webhooks=asked.webhooks,
            deliveries=asked.deliveries,
            catalogue=catalogue,
            tests=asked.tests,
            rotation=asked.rotation,
            redeliveries=asked.redeliveries,
            inspections=Inspections(records, "Test/1.0"),
            replays=asked.replays,
            letters=asked.letters,
            overviews=Overviews(store, statistics, own, DEFAULT_TIERS),
            clock=own,
            tiers=DEFAULT_TIERS,
        )
        sessions = Sessions(keyring, own, draws("console"))
        idempotency = Idempotency(claims, own, keyring, draws("once"))
        app.add_subapp("/console", make_console(operations, limits, sessions, idempotency))

    async with api_stack(
        webhook_store=store,
        api_key_store=key_store,
        audit_store=audit_store,
        idempotency_store=claims,
        log=reader,
        outage=outage,
        catalogue=catalogue,
        known_types=catalogue.types,
        requests=requests,
        guesses=guesses,
        add=add,
        tests=EventTests(
            store,
            catalogue,
            sender,
            written,
            keyring,
            clock,
            draws("tests"),
            "Test/1.0",
            audit=Audit(audit_store, clock, draws("audit")),
        ),
        redeliveries=Redeliveries(store, reader, written, records, records, names, clock, draws("again")),
        replay_store=replays,
    ) as api:
        jar = CookieJar(unsafe=True)
        async with TestClient(api.client.server, cookie_jar=jar) as client:
            browser = Browser(client, api.keys)
            stores = (store, written, key_store, audit_store, claims)
            yield ConsoleStack(api, browser, sender, records, replays, reader, statistics, api.client.server, *stores)
