"""Hostile words in every field run nothing in a real browser."""

from urllib.parse import quote

from dispatcher.core.delivery_log import DeliveryStatus
from tests.browser.conftest import Console
from tests.deployment import event
from tests.kafka_support import until
from tests.receiver import Answer

SCRIPTS = (
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 2">',
    "'><svg onload=window.ran=3>",
    "javascript:window.ran=4",
    "</pre></textarea></title><script>window.ran=5</script>",
)
HOSTILE = " ".join(SCRIPTS)


async def test_script_in_every_field_runs_nowhere(console):
    """Name, description, headers, URL, event types, payload, response body and error, filters: all shown as text."""
    deployment, path = console.deployment, f"/{console.workspace}"
    deployment.receiver.answer(path, Answer(500, body=HOSTILE.encode()))
    webhook = await deployment.webhook(
        f"{path}?{quote(HOSTILE)}",
        console.workspace,
        name=HOSTILE[:200],
        description=HOSTILE,
        headers={"X-Note": HOSTILE},
        max_attempts=1,
    )
    own = webhook.subscription.id
    deployment.receiver.answer(webhook.subscription.url.target, Answer(500, body=HOSTILE.encode()))
    await until(lambda: deployment.running.index.get(own), "the worker knows the webhook")
    number = f"{console.workspace}-x{HOSTILE[:60]}"
    await deployment.publish(event(number, workspace=console.workspace, note=HOSTILE))
    delivery = deployment.delivery_id(f"evt_{number}", webhook)
    await deployment.until_logged(delivery, webhook, DeliveryStatus.FAILED)

    page = await console.open()
    ran: list[str] = []
    page.on("dialog", lambda dialog: ran.append(dialog.message))
    page.on("pageerror", lambda error: ran.append(str(error)))
    refused: list[str] = []
    page.on("console", lambda line: refused.append(line.text) if "Content Security Policy" in line.text else None)
    text = quote(HOSTILE)
    for where in (
        "",
        "/webhooks",
        f"/webhooks?q={text}",
        f"/webhooks/{own}",
        f"/webhooks/{own}/edit",
        f"/webhooks/{own}/delete",
        f"/webhooks/{own}/rotate",
        f"/webhooks/{own}/replay",
        f"/webhooks/{own}/test?type={text}&log={text}",
        f"/webhooks/{own}/deliveries",
        f"/webhooks/{own}/deliveries?status={text}&type={text}&since={text}",
        f"/webhooks/{own}/deliveries/{delivery}",
        f"/webhooks/{own}/deliveries/{text}",
        "/dead-letters",
        f"/dead-letters?subscription={text}&type={text}&reason={text}&response_code={text}&since={text}",
        f"/dead-letters/{delivery}",
        f"/dead-letters/replay?delivery={text}",
        "/dead-letters/handled",
        f"/dead-letters/{text}",
        f"/webhooks/{own}?missed_since={text}&missed_until={text}",
        f"/event-types?q={text}",
        f"/event-types/{text}",
        f"/sign-in?next={text}",
    ):
        await page.goto(f"{console.base}{where}", wait_until="load")
        assert await page.evaluate("window.ran") is None, where
        assert await page.locator("main script, main img[src=x], main svg[onload]").count() == 0, where
    await page.goto(f"{console.base}/webhooks/{own}/deliveries/{delivery}")
    shown = await page.locator("main").inner_text()
    for script in SCRIPTS:
        assert script in shown
    # Typed into the form, where it comes back with its problems.
    await page.goto(f"{console.base}/webhooks/new")
    for label in ("Name required", "Callback URL required", "Description", "Other types or prefixes"):
        await page.get_by_label(label).fill(HOSTILE)
    await page.get_by_role("button", name="Create").click()
    assert await page.get_by_label("Description").input_value() == HOSTILE
    assert await page.evaluate("window.ran") is None
    assert (ran, refused) == ([], [])


async def test_the_policy_stops_what_would_get_through(console: Console):
    """Were a tag ever put into a page, the Content-Security-Policy would not let it run."""
    page = await console.open()
    refused: list[str] = []
    page.on("console", lambda line: refused.append(line.text))
    await page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", '<img src="data:x" onerror="window.ran = 2">');
        }"""
    )
    await until(lambda: any("Content Security Policy" in line for line in refused), "the browser says what it refused")
    assert await page.evaluate("window.ran") is None
