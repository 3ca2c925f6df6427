"""The console over stores in memory."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.console_stack import Browser, ConsoleStack, console_stack


@pytest.fixture
async def console() -> AsyncIterator[ConsoleStack]:
    async with console_stack() as stack:
        yield stack


@pytest.fixture
async def browser(console: ConsoleStack) -> Browser:
    """A browser that is signed in with a key that may read and write."""
    await console.browser.sign_in()
    return console.browser
