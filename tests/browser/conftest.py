"""The real console on real Kafka and MongoDB, and Debian's Chromium to look at it with.

Where no Chromium is installed the tests of this folder are skipped and the run says so; with
`TESTS_NEED_BROWSER` set they fail instead.
"""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.operations.api_keys import ApiKeys
from tests.deployment import Deployment, deploy, make_settings
from tests.services import Services

TIERS = ("3s", "90s")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
NAMES = ("chromium", "chromium-browser", "google-chrome")
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}

_MISSING = "no Chromium is installed, so the console was not tried in a browser (Debian: apt-get install chromium)"
_TOLD = pytest.StashKey[list[str]]()


@dataclass
class Console:
    """A console with a key of the test's workspace.

    Attributes:
        deployment: What it belongs to; its worker runs.
        base: Its address, `/console` included.
        workspace: The test's own.
        key: May read and write, until `become_read_only`.
        pages: Pages that were opened with `open`.
    """

    deployment: Deployment
    base: str
    workspace: str
    key: str
    browser: Browser
    told: Callable[[str], None]
    contexts: list[BrowserContext] = field(default_factory=list)

    async def open(self, *, signed_in: bool = True, **options: Any) -> Page:
        """Open a page of a fresh browser profile; `options` are those of the profile."""
        context = await self.browser.new_context(**{"viewport": DESKTOP, **options})
        self.contexts.append(context)
        context.set_default_timeout(20_000)
        page = await context.new_page()
        if signed_in:
            await self.sign_in(page)
        return page

    async def sign_in(self, page: Page) -> None:
        """Sign in."""
        await page.goto(self.base)
        await page.get_by_label("API key").fill(self.key)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(self.base)

    async def become_read_only(self) -> None:
        """Go on with a key that may read and nothing else."""
        keys = ApiKeys(MongoApiKeys(self.deployment.connection.api_keys), SystemClock(), draw)
        self.key = (await keys.create(self.workspace, "auditor", ("read",))).plaintext

    @staticmethod
    async def shot(page: Page, name: str, *, full: bool = True) -> None:
        """Keep a picture of a page as build output."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=SHOTS / f"{name}.png", full_page=full)


@pytest.fixture(scope="session")
async def chromium(request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    """A running Chromium of the system's."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("TESTS_NEED_BROWSER"):
            pytest.fail(_MISSING, pytrace=False)
        _tell(request.config, _MISSING)
        pytest.skip(_MISSING)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        await browser.close()


@asynccontextmanager
async def served(deployment: Deployment) -> AsyncIterator[str]:
    """Serve API and console; gives the console's address."""
    async with TestServer(build_api(deployment.settings, deployment.connection)) as server:
        yield str(server.make_url("/console"))


@pytest.fixture(scope="module")
async def deployed(
    chromium: Browser, services: Services, unique_name: Callable[..., str]
) -> AsyncIterator[tuple[Deployment, str]]:
    """A deployment whose worker runs in this process, and its console's address."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("browser"), TIERS)
    async with deploy(settings) as deployment, deployment.worker() as worker, served(deployment) as base:
        deployment.running = worker
        yield deployment, base


@pytest.fixture
async def console(
    chromium: Browser,
    deployed: tuple[Deployment, str],
    unique_name: Callable[..., str],
    request: pytest.FixtureRequest,
) -> AsyncIterator[Console]:
    """The console with a workspace and a key that no other test has."""
    deployment, base = deployed
    workspace = unique_name("ws")
    keys = ApiKeys(MongoApiKeys(deployment.connection.api_keys), SystemClock(), draw)
    key = (await keys.create(workspace, "on call", ("read", "write"))).plaintext
    made = Console(deployment, base, workspace, key, chromium, lambda line: _tell(request.config, line))
    yield made
    for context in made.contexts:
        await context.close()


def _tell(config: pytest.Config, line: str) -> None:
    lines = config.stash.setdefault(_TOLD, [])
    if line not in lines:
        lines.append(line)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what the pages weigh, what axe found, or why nothing was tried."""
    for line in config.stash.get(_TOLD, []):
        terminalreporter.write_line(f"console: {line}")
