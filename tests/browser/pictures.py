"""Four of the README's pictures of the console, made again: `python -m pytest tests/browser/pictures.py`.

List, form, delivery log and overview; those of the dead letters are not among them. No test by its name, so that no run
but this one writes into the source tree. A palette of 256 colours, by any image program, makes them half as large.
"""

import math
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser

import dispatcher.console
from dispatcher.app.clock import SystemClock, draw
from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.core.retry import DEFAULT_TIERS
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.operations.api_keys import ApiKeys
from tests.browser.conftest import Console, served
from tests.deployment import deploy, make_settings
from tests.services import Services

PICTURES = Path(dispatcher.console.__file__).parent / "pictures"
SIZE = {"width": 1280, "height": 800}
WORKSPACE = "default"
HOUR_MS = 3_600_000
TROUBLE_MS = (1_620_000, 1_860_000)
"""How long ago the endpoint began to be well again, and to be ill."""
PEOPLE = ("user.created", "user.updated", "user.deleted", "team.member.added")
WEBHOOKS = (
    ("Legacy audit trail", "https://audit.example.com/in", ("team.*",)),
    ("Mail digests", "https://mail.example.com/hooks/events", ("post.published", "post.scheduled")),
    ("Billing sync", "https://billing.example.com/webhooks", ("user.created", "user.deleted", "account.*", "team.*")),
    ("CRM import", "https://crm.example.com/hooks/people", PEOPLE),
)
"""Oldest first: names, URLs and event types."""


def some_id(kind: str, chance: random.Random) -> str:
    """Make up an id."""
    return f"{kind}_" + "".join(chance.choices("abcdefghijklmnopqrstuvwxyz234567", k=26))


def outcome(age_ms: int, chance: random.Random) -> tuple[DeliveryStatus, float, int]:
    """Make up how a first attempt of that age ended, what it took in ms, and its status code."""
    ill = TROUBLE_MS[0] < age_ms < TROUBLE_MS[1]
    took = chance.lognormvariate(math.log(110 if ill else 30), 0.5)
    recent = age_ms < HOUR_MS / 10
    if chance.random() < (0.45 if ill else 0.12 if recent else 0.04):
        return (DeliveryStatus.RETRYING if recent else DeliveryStatus.FAILED), took, chance.choice((503, 503, 500))
    return DeliveryStatus.DELIVERED, took, chance.choice((200, 200, 202))


def an_hour(own: str, now_ms: int) -> list[LogEntry]:
    """Make up what a webhook was sent in an hour: the same at each call, but for the time."""
    chance, entries = random.Random(11), []
    for number in range(640):
        age_ms = chance.randrange(HOUR_MS)
        status, took, code = outcome(age_ms, chance)
        said, attempt = {} if status is DeliveryStatus.DELIVERED else {"error": f"the endpoint answered {code}"}, 1
        if status is DeliveryStatus.FAILED:
            said["reason"], attempt = "attempts_exhausted", 6
        if status is DeliveryStatus.RETRYING:
            said["next_attempt_at_ms"] = now_ms + chance.randrange(30_000, 300_000)
        entries.append(
            LogEntry(
                some_id("del", chance), WORKSPACE, own, some_id("evt", chance), chance.choice(PEOPLE), "",
                Origin("events", 0, number, now_ms - age_ms), "", attempt, status, now_ms - age_ms, took, code, **said,
            )
        )  # fmt: skip
    return entries


@pytest.fixture
async def busy(
    chromium: Browser, services: Services, unique_name: Callable[..., str]
) -> AsyncIterator[tuple[Console, str]]:
    """A console of webhooks, and the id of one with an hour of deliveries behind it; no worker runs."""
    tiers = tuple(tier.name for tier in DEFAULT_TIERS)
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("pictures"), tiers)
    async with deploy(settings) as deployment, served(deployment) as base:
        keys = ApiKeys(MongoApiKeys(deployment.connection.api_keys), SystemClock(), draw)
        key = (await keys.create(WORKSPACE, "local", ("read", "write"))).plaintext
        made = [
            await deployment.webhook("/", WORKSPACE, name=name, url=url, events=list(events))
            for name, url, events in WEBHOOKS
        ]
        await deployment.webhooks.update(WORKSPACE, made[0].subscription.id, {"status": "inactive"})
        own = made[-1].subscription.id
        entries = an_hour(own, SystemClock().now_ms())
        await MongoDeliveryLog(deployment.connection.deliveries).write(entries)
        console = Console(deployment, base, WORKSPACE, key, chromium, print)
        yield console, own
        for context in console.contexts:
            await context.close()


async def test_pictures(busy: tuple[Console, str]) -> None:
    """The list, the form, the delivery log and, in the dark, the overview stand in the console's folder of pictures."""
    console, own = busy
    pages = {"webhooks": "/webhooks", "form": "/webhooks/new", "deliveries": f"/webhooks/{own}/deliveries"}
    for scheme, shown in (("light", pages), ("dark", {"overview": ""})):
        page = await console.open(viewport=SIZE, color_scheme=scheme, locale="en-GB")
        for name, path in shown.items():
            await page.goto(f"{console.base}{path}")
            await page.get_by_role("link", name="Dead letters", exact=True).wait_for()
            await page.screenshot(path=PICTURES / f"{name}.png")
