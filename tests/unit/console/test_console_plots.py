"""Plots and the page that they stand on."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from dispatcher.console import plots
from dispatcher.core.errors import UnavailableError
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.latency import Latency
from dispatcher.operations.overview import Bucket, Overview, TierBacklog
from dispatcher.ports import WaitingDelivery
from tests.fakes.api_stack import START_MS
from tests.unit.api.test_api_deliveries import delivery


def overview(buckets, **changes):
    values = {
        "window": "1h",
        "bucket_ms": 60_000,
        "buckets": buckets,
        "latency": None,
        "backlog": [TierBacklog("1m", 3, START_MS), TierBacklog("<b>", 0, None)],
        "at_once": 0,
        "backlog_cut": False,
        "webhooks": 1,
        "webhooks_cut": False,
    }
    return Overview(**{**values, **changes})


def bucket(place, delivered=0, failed=0, latency=None, **others):
    return Bucket(
        START_MS + place * 60_000, delivered, failed, others.get("skipped", 0), others.get("under", 0), latency
    )


BUSY = [
    bucket(0, 10, 0, Latency(5, 20, 80)),
    bucket(1, 5, 5, Latency(6, 30, 90)),
    bucket(2),
    bucket(3, 0, 1, Latency(7, 40, 100), skipped=1, under=2),
]


@pytest.mark.parametrize("draw", [plots.rate, plots.success, plots.latency, plots.backlog])
@pytest.mark.parametrize("buckets", [BUSY, [bucket(place) for place in range(60)]])
def test_each_plot_is_well_formed_and_has_no_style_of_its_own(draw, buckets):
    """SVG that a parser reads, with a name for those who don't see it, and nothing that the policy would refuse."""
    root = ET.fromstring(draw(overview(buckets)))
    assert (root.get("role"), bool(root.get("aria-label"))) == ("img", True)
    assert not any("style" in element.attrib for element in root.iter())


def test_bars_are_as_high_as_what_they_stand_for():
    """Of one minute with ten deliveries, half of them failed, both halves are as high, on each other."""
    root = ET.fromstring(plots.rate(overview(BUSY)))
    bars = {(rect.get("class"), float(rect.get("x"))): rect for rect in root.iter("rect")}
    second = sorted((float(each.get("y")), float(each.get("height"))) for (_, x), each in bars.items() if 180 < x < 190)
    (upper, height), (lower, same) = second
    assert height == same
    assert upper + height == pytest.approx(lower, abs=0.1)
    assert "5 delivered, 5 failed" in "".join(root.itertext())


def test_lines_break_where_nothing_was_measured():
    """Two neighbours make a line, one alone a dot."""
    root = ET.fromstring(plots.success(overview(BUSY)))
    assert [len(line.get("points").split()) for line in root.iter("polyline")] == [2]
    assert len(list(root.iter("circle"))) == 1


async def test_the_overview_counts_this_workspaces_webhooks(browser, console):
    """Tiles, plots and failures of the workspace; another one's webhooks aren't asked about."""
    created = await console.api.create(name="Mine")
    await console.api.call("POST", "/webhooks", {"url": "https://hooks.example.com/", "events": ["*"]}, key="other")
    console.statistics.found = {START_MS - 60_000: {"delivered": 9, "failed": 1}}
    console.statistics.took = [10.0] * 98 + [500.0] * 2
    console.statistics.waits = [WaitingDelivery(1, 60_000, START_MS + 5), WaitingDelivery(0, None, None)]
    console.reader.deliveries = [
        delivery(1, created["id"], status="failed", reason="attempts_exhausted", error="<i>no</i>"),
        delivery(2, created["id"], status="failed", test=True, event_id="evt_test_2"),
    ]
    console.api.clock.ms += 5000
    seen = await browser.get("")
    assert console.statistics.asked[-1] == [created["id"]]
    await browser.get("")
    assert len(console.statistics.asked) == 2, "an overview is shown again for some seconds"
    assert "Deliveries 10 Delivered 90.0 % Failed for good 1" in seen.words
    assert "Latency, median 10 ms Latency, p99 500 ms Waiting 2" in seen.words
    assert "attempts exhausted" in seen.words
    assert "evt_test_2" not in seen.words
    assert "<i>no" not in seen.text
    assert seen.text.count('<svg class="plot"') == 4
    assert (await browser.get("?window=7d")).status == 200
    assert (await browser.get("?window=bogus")).status == 200


async def test_an_empty_overview_says_what_to_do(browser):
    """Without webhooks there is a word on what will show here."""
    assert "Nothing to see yet" in (await browser.get("")).words


async def test_disabled_webhooks_come_first_to_whoever_is_on_call(browser, console):
    """They show on the overview with their reason."""
    created = await console.api.create(name="Broken")
    store = console.api.webhook_store
    webhook = store.webhooks[created["id"]]
    off = replace(webhook.subscription, status="disabled")
    store.webhooks[created["id"]] = replace(webhook, subscription=off, disabled_reason="its endpoint is gone")
    assert "its endpoint is gone" in (await browser.get("")).words


@pytest.mark.parametrize(
    ("slow", "drawn", "told", "tiles"),
    [
        ({"counts"}, 1, "too many deliveries to count over 6h", "Deliveries — Delivered — Failed for good —"),
        ({"durations"}, 3, "too many deliveries to measure over 6h", "Latency, median — Latency, p99 —"),
        ({"waiting"}, 3, "What waits could not be counted in time", "Waiting — Deliveries per minute"),
    ],
)
async def test_a_part_that_takes_too_long_leaves_the_others(browser, console, slow, drawn, told, tiles):
    """Where a plot would be stands what to do, and no number is made up; the page is none of an error."""
    await console.api.create()
    console.statistics.found, console.statistics.slow = {START_MS: {"delivered": 1}}, slow
    seen = await browser.get("?window=6h")
    assert (seen.status, seen.text.count('<svg class="plot"')) == (200, drawn)
    assert told in seen.words
    assert tiles in seen.words


async def test_failures_that_take_too_long_to_find_leave_the_rest(browser, console, monkeypatch):
    """The plots show, and in place of the list stands what to do."""

    async def page(*_, **__):
        raise UnavailableError("MongoDB gave up", shown="ask for fewer")

    await console.api.create()
    monkeypatch.setattr(DeadLetters, "page", page)
    seen = await browser.get("?window=6h")
    assert (seen.status, seen.text.count('<svg class="plot"')) == (200, 4)
    assert "Latest failures: Ask for fewer. Those of the last 6h" in seen.words
    assert 'href="/console/dead-letters?since=2026-01-15T04:35:00Z"' in seen.text


async def test_a_database_that_is_away_is_told_as_such(browser, console):
    """No part is left out for that: the page says to come again."""
    console.statistics.outage.down = True
    assert (await browser.get("")).status == 503
    console.statistics.outage.down = False


def test_what_is_pointed_at_says_its_day_and_its_utc():
    """Bars and the labels of the time's axis; the script puts the reader's time before it, or in its place."""
    root = ET.fromstring(plots.rate(overview(BUSY)))
    titles = [title for title in root.iter("title") if title.get("data-at")]
    assert titles[0].text == "2026-01-15 10:30 UTC: 10 delivered"
    assert titles[0].get("data-at") == str(START_MS)
    labels = [(text.find("title").text, text.find("tspan").text) for text in root.iter("text") if len(text)]
    assert labels[0] == ("2026-01-15 10:30 UTC", "10:30")
