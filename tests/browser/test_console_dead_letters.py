"""Dead letters in a real browser: without script, and without a pointer."""

from playwright.async_api import Page, expect

from dispatcher.app.clock import SystemClock
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from tests.browser.conftest import Console
from tests.deployment import event
from tests.kafka_support import until
from tests.receiver import Answer


async def fail(console: Console, path: str, count: int) -> str:
    """Let events fail for good at a webhook that lets them, and return its id; its endpoint works afterwards."""
    deployment = console.deployment
    deployment.receiver.answer(path, Answer(500, body=b"out of order"))
    webhook = await deployment.webhook(path, console.workspace, name="Billing", events=["*"], max_attempts=1)
    own = webhook.subscription.id
    await until(lambda: deployment.running.index.get(own), "the worker knows the webhook")
    numbers = [f"{console.workspace}-{number}" for number in range(count)]
    await deployment.publish(*(event(number, workspace=console.workspace) for number in numbers))
    for number in numbers:
        delivery = deployment.delivery_id(f"evt_{number}", webhook)
        await deployment.until_logged(delivery, webhook, DeliveryStatus.FAILED)
    deployment.receiver.answer(path, 200)
    return own


def logged_id(console: Console, own: str, event_id: str) -> str:
    return DeliveryIds(console.workspace, "", event_id).of(own)


async def log_failures(console: Console, own: str, count: int) -> str:
    """Write failures that have no record: they can be listed and marked; gives the newest one's delivery id."""
    now_ms = SystemClock().now_ms()
    entries = [
        LogEntry(
            logged_id(console, own, f"evt_{number}"), console.workspace, own, f"evt_{number}", "user.created", "",
            Origin(console.deployment.source, 0, 10**9 + number, now_ms), "", 1, DeliveryStatus.FAILED, now_ms - number,
            12.0, 503, error="the endpoint answered 503", reason="attempts_exhausted", response_body=b"busy",
        )
        for number in range(count)
    ]  # fmt: skip
    await MongoDeliveryLog(console.deployment.connection.deliveries).write(entries)
    return entries[0].delivery_id


async def test_dead_letters_without_javascript(console):
    """Filter, follow a count, look into one, go back on a question, send one again, mark the rest: links and forms."""
    path, receiver = f"/{console.workspace}", console.deployment.receiver
    own = await fail(console, path, 3)
    page = await console.open(java_script_enabled=False)
    await page.get_by_role("link", name="Dead letters", exact=True).click()
    await expect(page.locator("tbody tr")).to_have_count(3)
    await expect(page.locator("tbody time").first).to_contain_text("UTC")
    await page.get_by_role("textbox", name="Response").fill("404")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_text("No dead letter matches")).to_be_visible()
    await page.get_by_role("link", name="Show all dead letters").click()
    await page.get_by_role("region", name="Reason", exact=True).get_by_role("link").click()
    assert page.url.endswith("?reason=attempts_exhausted")
    await expect(page.get_by_role("combobox", name="Reason", exact=True)).to_have_value("attempts_exhausted")

    await page.locator("tbody tr a").first.click()
    await expect(page.get_by_label("What the endpoint said last")).to_contain_text("out of order")
    await page.get_by_role("link", name="Mark as handled").click()
    await page.get_by_role("link", name="Cancel").click()
    before = len(receiver.at(path))
    await page.get_by_role("link", name="Replay this").click()
    await page.get_by_label("Deliveries a second, at most").fill("many")
    await page.get_by_role("button", name="Start replay").click()
    await expect(page.locator("#rate-problem")).to_be_visible()
    await page.get_by_label("Deliveries a second, at most").fill("5")
    await page.get_by_role("button", name="Start replay").click()
    await page.wait_for_url("**/console/replays/rpl_*")
    await until(lambda: len(receiver.at(path)) == before + 1, "the dead letter comes again")

    await page.goto(f"{console.base}/dead-letters?subscription={own}")
    await expect(page.locator("tbody tr")).to_have_count(2)
    await page.get_by_role("link", name="Mark as handled").click()
    await expect(page.locator("dl.facts").first).to_contain_text("Dead letters2")
    await page.get_by_role("button", name="Mark as handled").click()
    await expect(page.get_by_text("2 dead letters marked as handled.")).to_be_visible()
    await expect(page.get_by_text("Nothing is left to be dealt with")).to_be_visible()


async def test_dead_letters_with_the_keyboard_alone(console):
    """From the menu to the list, its filters, a letter, a question and its answer; the focus shows at each step."""
    webhook = await console.deployment.webhook(f"/{console.workspace}", console.workspace, name="Billing")
    await log_failures(console, webhook.subscription.id, 3)
    page = await console.open()
    await follow(page, "Dead letters")
    await page.wait_for_url("**/console/dead-letters")
    await reach(page, "document.activeElement.id === 'response_code'")
    await page.keyboard.type("503")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**response_code=503**")
    await reach(page, "document.activeElement.closest('tbody') !== null")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/dead-letters/del_*")
    await follow(page, "Mark as handled")
    await page.wait_for_url("**/dead-letters/handled?*")
    await follow(page, "Mark as handled")
    await expect(page.get_by_text("1 dead letter marked as handled.")).to_be_visible()
    await expect(page.locator("tbody tr")).to_have_count(2)
    await follow(page, "Replay these")
    await page.wait_for_url("**/dead-letters/replay*")
    await follow(page, "Cancel")
    await page.wait_for_url("**/console/dead-letters")


async def test_the_focus_stays_while_a_replay_goes_on(console):
    """Whoever is on a control of a live part stays on it as the part changes, and near it when it is gone."""
    path = f"/{console.workspace}"
    await fail(console, path, 4)
    page = await console.open()
    await page.goto(f"{console.base}/dead-letters/replay")
    await page.get_by_label("Deliveries a second, at most").fill("0.5")
    await page.get_by_role("button", name="Start replay").click()
    await page.wait_for_url("**/console/replays/rpl_*")
    await expect(page.locator("#replay")).to_contain_text("of 4 deliveries gone through")
    await reach(page, "document.activeElement.innerText === 'Cancel replay'")
    told = await page.locator("#replay").inner_text()
    await expect(page.locator("#replay")).not_to_have_text(told, use_inner_text=True)
    assert await page.evaluate("document.activeElement.innerText") == "Cancel replay"
    await expect(page.locator("#replay")).to_contain_text("done", timeout=60_000)
    await expect(page.get_by_text("Cancel replay")).to_have_count(0)
    assert await page.evaluate("document.activeElement.id") == "replay"
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.closest('#replay') !== null")


async def test_times_are_the_readers_and_countdowns_the_servers(console):
    """A shared time stands in its field with the reader's beside it; a clock that is wrong makes nothing due."""
    webhook = await console.deployment.webhook(f"/{console.workspace}", console.workspace, name="Billing")
    own, now_ms = webhook.subscription.id, SystemClock().now_ms()
    entry = LogEntry(
        logged_id(console, own, "evt_7"), console.workspace, own, "evt_7", "user.created", "",
        Origin("events", 0, 10**9, now_ms), "", 1,
        DeliveryStatus.RETRYING, now_ms, 12.0, 503, next_attempt_at_ms=now_ms + 590_000,
    )  # fmt: skip
    await MongoDeliveryLog(console.deployment.connection.deliveries).write([entry])
    page = await console.open(timezone_id="Asia/Kolkata", locale="en-GB")
    for name in ("/dead-letters", f"/webhooks/{own}/deliveries"):
        await page.goto(f"{console.base}{name}?since=2026-01-15T11:00:05%2B01:00")
        await expect(page.locator("#since")).to_have_value("2026-01-15T10:00:05")
        await expect(page.locator("[data-zone-of=since]")).to_contain_text("15:30:05 here")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator("#since")).to_have_value("2026-01-15T10:00:05")
    await page.add_init_script("const real = Date.now; Date.now = () => real() + 600_000")
    await page.goto(f"{console.base}/webhooks/{own}/deliveries/{entry.delivery_id}")
    await expect(page.locator("time[data-countdown]")).to_contain_text("in 9 min")
    await page.goto(console.base)
    bar = page.locator("svg title[data-at]").first
    assert "here, 20" in await bar.text_content()
    assert "UTC: 1 under way" in await bar.text_content()


async def test_a_read_only_key_sees_all_and_is_offered_nothing(console):
    """No page draws a way to change something, and what its address leads to is refused with a word on why."""
    webhook = await console.deployment.webhook(f"/{console.workspace}", console.workspace, name="Billing")
    own = webhook.subscription.id
    letter = await log_failures(console, own, 2)
    await console.become_read_only()
    page = await console.open()
    await expect(page.get_by_text("read-only")).to_be_visible()
    for path in (
        "", "/webhooks", f"/webhooks/{own}", f"/webhooks/{own}/deliveries", f"/webhooks/{own}/deliveries/{letter}",
        f"/webhooks/{own}/test", f"/webhooks/{own}/replay", "/dead-letters", f"/dead-letters/{letter}", "/replays",
        "/event-types",
    ):  # fmt: skip
        await page.goto(f"{console.base}{path}")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert await page.locator("main form[method=post]").count() == 0, path
        assert await page.locator("main a.button.primary, main a.button.danger").count() == 0, path
    for path in ("/webhooks/new", f"/webhooks/{own}/edit", "/dead-letters/replay", "/dead-letters/handled"):
        answer = await page.goto(f"{console.base}{path}")
        assert answer.status == 403, path
        await expect(page.locator("main")).to_contain_text("lacks the scope write")


async def follow(page: Page, text: str) -> None:
    """Press Tab until a link or button with this text has the focus, see that it shows, and press Enter."""
    await reach(page, f"document.activeElement.innerText?.trim() === {text!r}")
    await page.keyboard.press("Enter")


async def reach(page: Page, condition: str) -> None:
    """Press Tab until a condition on the focus holds, and see that the focus shows."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        if await page.evaluate(condition):
            assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
    raise AssertionError(f"80 steps never led to {condition}")
