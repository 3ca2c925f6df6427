"""How the console looks, what it weighs, and who can use it; pictures are kept under `build/screenshots`."""

import random

import pytest
from axe_playwright_python.async_playwright import Axe

from dispatcher.app.clock import SystemClock
from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from tests.browser.conftest import DESKTOP, PHONE, Console

FIRST_PAGE_BYTES = 100 * 1024
_LOADED = """() => {
    const [own] = performance.getEntriesByType("navigation");
    const parts = [own, ...performance.getEntriesByType("resource")];
    return {
        parts: parts.map((part) => [part.name, part.decodedBodySize]),
        first: own.responseStart - own.requestStart,
        load: own.loadEventEnd || own.domComplete,
    };
}"""
_TYPES = ("user.created", "account.added", "post.published", "team.member.added")


@pytest.fixture
async def busy(console: Console) -> tuple[Console, str, str]:
    """A console with three webhooks and an hour of deliveries; and the ids of a webhook and a retrying delivery."""
    deployment, chance = console.deployment, random.Random(7)
    names = (("Billing sync", "https"), ("CRM import", "flaky"), ("Audit trail", "slow"))
    webhooks = [
        await deployment.webhook(f"/{path}", console.workspace, name=name, events=["user.*", "post.published"])
        for name, path in names
    ]
    await deployment.webhooks.update(console.workspace, webhooks[2].subscription.id, {"status": "inactive"})
    own, now_ms = webhooks[1].subscription.id, SystemClock().now_ms()
    entries = []
    for number in range(420):
        at_ms = now_ms - chance.randrange(3_500_000)
        common = (
            f"del_{number:026}", console.workspace, own, f"evt_{number:026}", chance.choice(_TYPES), "",
            Origin(deployment.source, 0, 10**9 + number, at_ms), "",
        )  # fmt: skip
        took = chance.lognormvariate(3.4, 0.6)
        if number % 12 == 5:
            error = {"response_code": 500, "error": "the endpoint answered 500", "response_body": b'{"error":"busy"}'}
            due = now_ms + 80_000 + number * 10
            state = {"status": DeliveryStatus.RETRYING, "next_attempt_at_ms": due} if number % 24 == 5 else {
                "status": DeliveryStatus.FAILED, "reason": "attempts_exhausted"
            }  # fmt: skip
            at_ms = now_ms - 9000 if number % 24 == 5 else at_ms
            entries.append(LogEntry(*common, 1, state.pop("status"), at_ms, took, **error, **state))
        else:
            body = b'{"ok":true}'
            entries.append(LogEntry(*common, 1, DeliveryStatus.DELIVERED, at_ms, took, 200, response_body=body))
    await MongoDeliveryLog(deployment.connection.deliveries).write(entries)
    return console, own, f"del_{5:026}"


def pages(own: str, delivery: str) -> dict[str, str]:
    return {
        "overview": "",
        "webhooks": "/webhooks",
        "webhook": f"/webhooks/{own}",
        "form": "/webhooks/new",
        "edit": f"/webhooks/{own}/edit",
        "deliveries": f"/webhooks/{own}/deliveries",
        "delivery": f"/webhooks/{own}/deliveries/{delivery}",
        "test": f"/webhooks/{own}/test",
        "rotate": f"/webhooks/{own}/rotate",
        "delete": f"/webhooks/{own}/delete",
        "deactivate": f"/webhooks/{own}/deactivate",
        "replay": f"/webhooks/{own}/replay",
        "dead-letters": "/dead-letters",
        "dead-letter": f"/dead-letters/del_{17:026}",
        "dead-letters-replay": "/dead-letters/replay",
        "dead-letters-handled": "/dead-letters/handled",
        "replays": "/replays",
        "event-types": "/event-types",
        "event-type": "/event-types/user.created",
        "nowhere": "/nowhere",
    }


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)])
async def test_axe_finds_nothing_on_any_page(busy, scheme, size):
    """No violation of axe-core's rules, in light and dark and at a phone's width; nothing is wider than the window."""
    console, own, delivery = busy
    kind = "phone" if size is PHONE else scheme
    page = await console.open(signed_in=False, color_scheme=scheme, viewport=size)
    await page.goto(f"{console.base}/sign-in")
    found = await violations(page, "sign-in")
    await console.shot(page, f"sign-in-{kind}")
    await console.sign_in(page)
    passed = 2
    for name, path in pages(own, delivery).items():
        await page.goto(f"{console.base}{path}")
        await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found += await violations(page, name)
        passed += 1
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} px too wide"
        await page.reload()
        await console.shot(page, f"{name}-{kind}")
    await page.goto(f"{console.base}/webhooks/new")
    await page.get_by_label("Secret", exact=True).fill("a secret of my own")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("heading", name="Your session has ended").wait_for()
    found += await violations(page, "kept")
    await console.shot(page, f"kept-{kind}")
    console.told(f"axe-core ({kind}): {len(found)} violations on {passed} pages")
    assert found == []


async def violations(page, name: str) -> list[str]:
    results = (await Axe().run(page)).response["violations"]
    return [
        f"{name}: {each['id']}: {each['nodes'][0]['html'][:160]}: {each['nodes'][0].get('failureSummary', '')[:300]}"
        for each in results
    ]


async def test_a_first_visit_is_light(busy):
    """The first page with everything that it loads stays under 100 KB; nothing comes from elsewhere."""
    console, own, delivery = busy
    # A browser's very first page costs what no server can help.
    await (await console.open(signed_in=False)).goto(f"{console.base}/sign-in")
    page = await console.open(signed_in=False)
    for name, path in {"sign-in": "/sign-in", **pages(own, delivery)}.items():
        if name == "overview":
            await console.sign_in(page)
        await page.goto(f"{console.base}{path}", wait_until="load")
        loaded = await page.evaluate(_LOADED)
        weight, first_byte, load = sum(size for _, size in loaded["parts"]), loaded["first"], loaded["load"]
        console.told(f"{name}: {weight / 1024:.1f} KB, first byte after {first_byte:.0f} ms, loaded in {load:.0f} ms")
        assert 5_000 < weight < FIRST_PAGE_BYTES, name
        assert all(url.startswith(console.base) for url, _ in loaded["parts"])
