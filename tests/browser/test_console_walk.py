"""The console in a real browser, as those use it who never open a terminal."""

import json
import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Console
from tests.deployment import event
from tests.kafka_support import until
from tests.receiver import Answer


async def create(page: Page, console: Console, name: str, path: str, **fields: str) -> str:
    """Create a webhook through the form; gives the path of its page."""
    await page.get_by_role("link", name="Webhooks", exact=True).last.click()
    await page.get_by_role("link", name="Create webhook").first.click()
    await page.get_by_label("Name required").fill(name)
    await page.get_by_label("Callback URL required").fill(console.deployment.receiver.url(path))
    for label, value in fields.items():
        await page.get_by_label(label.replace("_", " ")).fill(value)
    await page.get_by_text("User Created", exact=False).click()
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    return page.url


async def publish(console: Console, *numbers: str) -> None:
    await console.deployment.publish(*(event(number, workspace=console.workspace) for number in numbers))


async def publish_known(console: Console, path: str, number: str) -> None:
    """Publish an event once the worker knows the webhook, and wait for its request."""
    webhooks = await console.deployment.webhooks.page(console.workspace, None, 1)
    webhook = webhooks.rows[0].subscription.id
    await until(lambda: console.deployment.running.index.get(webhook), "the worker knows the webhook")
    await publish(console, number)
    await until(lambda: console.deployment.receiver.at(path), "the delivery arrives")


async def test_from_the_first_webhook_to_a_replay(console):
    """Create, publish, see the delivery; fail, see the retry counted down to; rotate, test, replay; dead letter."""
    path = f"/{console.workspace}"
    page = await console.open(permissions=["clipboard-read", "clipboard-write"])
    await expect(page.get_by_text("Nothing to see yet")).to_be_visible()
    own = await create(page, console, "Billing", path)
    secret = await the_secret_shows_once(page)
    await a_delivery_shows_by_itself(page, console, own, path)
    await a_failure_shows_its_retry(page, console, path)
    assert secret not in await page.content()
    await it_is_redelivered_in_place(page, console, path)
    await page.goto(own)
    await the_secret_is_rotated(page, secret)
    await a_test_event_has_its_result(page)
    await a_replay_shows_its_progress(page, console, path)
    await a_dead_letter_is_sent_again(page, console, own, path)
    await page.goto(own)
    await it_is_deactivated(page)


async def it_is_deactivated(page: Page) -> None:
    """On a question that says what waits."""
    await page.get_by_role("link", name="Deactivate").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Deactivate this webhook?")
    await expect(page.locator("main")).to_contain_text("for another attempt")
    await page.get_by_role("button", name="Deactivate").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("inactive")


async def the_secret_shows_once(page: Page) -> str:
    """It has a button that copies it, and a snippet for the header and the language chosen; a reload forgets it."""
    secret = await page.locator("#secret").inner_text()
    assert secret.startswith("whsec_")
    await page.get_by_role("button", name="Copy secret").click()
    assert await page.evaluate("navigator.clipboard.readText()") == secret
    await page.get_by_label("Python", exact=True).check()
    await page.get_by_label("webhook-signature", exact=True).check()
    await expect(page.locator("#snippet-3-1")).to_be_visible()
    await expect(page.locator(".snippet:visible")).to_have_count(1)
    await page.reload()
    await expect(page.locator("#secret")).to_have_count(0)
    return secret


async def a_delivery_shows_by_itself(page: Page, console: Console, own: str, path: str) -> None:
    await page.goto(f"{own}/deliveries")
    await expect(page.get_by_text("No deliveries yet")).to_be_visible()
    await publish_known(console, path, f"{console.workspace}-1")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.locator("tbody tr")).to_contain_text("delivered")


async def a_failure_shows_its_retry(page: Page, console: Console, path: str) -> None:
    """From the log to the delivery: what was tried, what is due and when, and the exchange with masked secrets."""
    console.deployment.receiver.answer(path, Answer(500, body=b'{"error":"out of order"}'))
    await publish(console, f"{console.workspace}-2")
    row = page.locator("tbody tr", has_text=f"evt_{console.workspace}-2")
    await expect(row).to_contain_text("retrying")
    await row.get_by_role("link").click()
    await expect(page.locator("#timeline")).to_contain_text("waits in tier 90s", timeout=30_000)
    await expect(page.locator("#timeline time[data-countdown]")).to_contain_text("in 1 min")
    await expect(page.locator("#timeline")).to_contain_text("in tier 3s")
    await page.reload()
    exchange = page.locator("#exchange")
    await expect(exchange).to_contain_text("out of order")
    await expect(exchange).to_contain_text("sha256=********")
    await expect(exchange).to_contain_text(f'"id": "evt_{console.workspace}-2"')


async def it_is_redelivered_in_place(page: Page, console: Console, path: str) -> None:
    console.deployment.receiver.answer(path, 200)
    await page.get_by_role("button", name="Redeliver").click()
    await expect(page.get_by_text("On its way again")).to_be_visible()
    await expect(page.locator("#standing")).to_contain_text("delivered")
    await expect(page.locator("#timeline")).to_contain_text("Replay")


async def the_secret_is_rotated(page: Page, secret: str) -> None:
    await page.get_by_role("link", name="Rotate secret").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Rotate the secret?")
    await page.get_by_role("button", name="Rotate secret").click()
    rotated = await page.locator("#secret").inner_text()
    assert rotated.startswith("whsec_")
    assert rotated != secret


async def a_test_event_has_its_result(page: Page) -> None:
    await page.get_by_role("link", name="Send test event").first.click()
    await page.get_by_label("Event type").select_option("post.published")
    await page.get_by_role("button", name="Send test event").click()
    result = page.get_by_label("Test of post.published")
    await expect(result).to_contain_text("delivered")
    await expect(result).to_contain_text("OK")


async def a_replay_shows_its_progress(page: Page, console: Console, path: str) -> None:
    """Its bar is there again after a reload, and both deliveries come once more."""
    receiver = console.deployment.receiver
    before = len(receiver.at(path))
    await page.get_by_role("link", name="Replay", exact=True).click()
    await page.get_by_label("Deliveries with the status").select_option("delivered")
    await page.get_by_role("button", name="Start replay").click()
    await page.wait_for_url("**/console/replays/rpl_*")
    await page.reload()
    await expect(page.locator("#replay")).to_contain_text("done", timeout=60_000)
    await expect(page.locator("#replay")).to_contain_text("2 of 2 deliveries gone through")
    await expect(page.locator("progress")).to_have_js_property("value", 2)
    await until(lambda: len(receiver.at(path)) == before + 2, "both deliveries come again")
    again = {json.loads(request.body)["id"] for request in receiver.at(path)[before:]}
    assert again == {f"evt_{console.workspace}-1", f"evt_{console.workspace}-2"}


async def a_dead_letter_is_sent_again(page: Page, console: Console, own: str, path: str) -> None:
    """What failed for good is found from the menu, looked into, sent again on a question, and gone from the list."""
    receiver, index, webhook = console.deployment.receiver, console.deployment.running.index, own.rpartition("/")[2]
    await page.goto(f"{own}/edit")
    await page.get_by_label("Max attempts").fill("1")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    await until(lambda: index.get(webhook).max_attempts == 1, "the worker knows of the change")
    receiver.answer(path, Answer(500, body=b'{"error":"out of order for good"}'))
    await publish(console, f"{console.workspace}-3")
    await page.get_by_role("link", name="Dead letters", exact=True).click()
    await expect_after_reload(page, "tbody tr", "attempts exhausted")
    await console.shot(page, "walk-dead-letters")
    await page.locator("tbody tr a").first.click()
    await expect(page.get_by_label("What the endpoint said last")).to_contain_text("out of order for good")
    await console.shot(page, "walk-dead-letter")
    receiver.answer(path, 200)
    before = len(receiver.at(path))
    await page.get_by_role("link", name="Replay this").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Send this again?")
    await console.shot(page, "walk-dead-letter-replay")
    await page.get_by_role("button", name="Start replay").click()
    await page.wait_for_url("**/console/replays/rpl_*")
    await expect(page.locator("#replay")).to_contain_text("1 of 1 deliveries gone through", timeout=60_000)
    await until(lambda: len(receiver.at(path)) == before + 1, "the dead letter comes again")
    await page.get_by_role("link", name="See which dead letters are left").click()
    await expect(page.get_by_text("Nothing is left to be dealt with")).to_be_visible()


async def test_without_javascript(console):
    """The same way with script switched off: forms, confirmations, results; a reload shows what is new."""
    receiver, path = console.deployment.receiver, f"/{console.workspace}"
    page = await console.open(java_script_enabled=False)
    own = await create(page, console, "Plain", path)
    assert (await page.locator("#secret").inner_text()).startswith("whsec_")
    assert await page.locator("[data-copy]:visible").count() == 0
    await expect(page.locator("#verify")).to_be_visible()
    await publish_known(console, path, f"{console.workspace}-1")
    await page.goto(f"{own}/deliveries")
    await expect_after_reload(page, "tbody tr", "delivered")
    await expect(page.locator("tbody time").first).to_contain_text("UTC")
    await page.locator("tbody tr a").first.click()
    await expect(page.locator("#exchange")).to_contain_text("X-Webhook-Event")
    receiver.answer(path, Answer(503, body=b"down"))
    await page.goto(f"{own}/test")
    await page.get_by_role("button", name="Send test event").click()
    await expect(page.locator("main")).to_contain_text("the endpoint answered 503")
    await page.goto(f"{own}/edit")
    await page.get_by_label("Name required").fill("")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#name-problem")).to_be_visible()
    await page.get_by_label("Name required").fill("Renamed")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Renamed")
    await it_is_deactivated(page)
    await page.get_by_role("link", name="Delete").click()
    await page.get_by_role("button", name="Delete for good").click()
    await expect(page.get_by_text("Renamed was deleted")).to_be_visible()
    await expect(page.get_by_text("No webhooks yet")).to_be_visible()


async def test_a_form_outlives_its_session(console):
    """Without script: a form whose session has ended is kept, and counts once the same key has signed in elsewhere."""
    page = await console.open(java_script_enabled=False)
    await page.goto(f"{console.base}/webhooks/new")
    await page.get_by_label("Name required").fill("Kept")
    await page.get_by_label("Callback URL required").fill(console.deployment.receiver.url(f"/{console.workspace}"))
    await page.get_by_text("User Created", exact=False).click()
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your session has ended")
    async with page.context.expect_page() as opened:
        await page.get_by_role("link", name="Sign in in another tab").click()
    door = await opened.value
    await door.get_by_label("API key").fill(console.key)
    await door.get_by_role("button", name="Sign in").click()
    await door.wait_for_url(console.base)
    await page.get_by_role("button", name="Send it again").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Kept")
    await expect(page.locator("#secret")).to_have_count(1)


async def test_two_clicks_create_one_webhook(console):
    """Without script to stop the second: the two answers lead to the one webhook, and its secret shows."""
    page = await console.open(java_script_enabled=False)
    await page.goto(f"{console.base}/webhooks/new")
    await page.get_by_label("Name required").fill("Once")
    await page.get_by_label("Callback URL required").fill(console.deployment.receiver.url(f"/{console.workspace}"))
    await page.get_by_role("button", name="Create").dblclick()
    await expect(page.locator("#secret")).to_have_count(1)
    await page.goto(f"{console.base}/webhooks")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def expect_after_reload(page: Page, selector: str, text: str) -> None:
    """Reload until an element has a text, with a deadline."""
    for _ in range(100):
        found = page.locator(selector)
        if await found.count() and text in await found.first.inner_text():
            return
        await page.reload()
        await page.wait_for_timeout(100)
    pytest.fail(f"{selector} never had {text}")


async def test_with_the_keyboard_alone(console):
    """Sign in, skip the menu, create a webhook and choose its events without a pointer; focus is always visible."""
    page = await console.open(signed_in=False)
    await page.goto(f"{console.base}/webhooks/new")
    await page.keyboard.type(console.key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{console.base}/webhooks/new")
    await page.keyboard.press("Tab")
    assert await focused(page) == "Skip to the content"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")  # the way back in the crumbs
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.id") == "name"
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.keyboard.type("By keyboard")
    await page.keyboard.press("Tab")
    await page.keyboard.type(console.deployment.receiver.url(f"/{console.workspace}"))
    while await page.evaluate("document.activeElement.value") != "user.created":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await page.keyboard.press("Shift+Tab")
    while await page.evaluate("document.activeElement.innerText") != "Create":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("By keyboard")
    await expect(page.locator(".chips")).to_contain_text("User Created")


async def focused(page: Page) -> str:
    return await page.evaluate("document.activeElement.innerText")


async def test_a_revoked_key_ends_the_session_of_an_open_page(console):
    """A live page that nobody touches leads to the sign-in page by itself."""
    page = await console.open()
    keys = await console.deployment.connection.api_keys.delete_many({"workspace_id": console.workspace})
    assert keys.deleted_count == 1
    await page.wait_for_url(re.compile("/console/sign-in"), timeout=30_000)
