"""How deliveries fare, counted and measured."""

import pytest

from dispatcher.core.errors import UnavailableError
from dispatcher.core.retry import DEFAULT_TIERS
from dispatcher.operations import overview as module
from dispatcher.operations.overview import MAX_WAITING, Latency, Overviews
from dispatcher.ports import WaitingDelivery
from tests.fakes.api_stack import START_MS, ManualClock, api_stack
from tests.fakes.console_stack import MemoryStatistics
from tests.fakes.stores import Outage

HOUR_MS = 3_600_000


@pytest.fixture
def outage():
    return Outage()


@pytest.fixture
def statistics(outage):
    return MemoryStatistics(outage)


@pytest.fixture
async def api():
    async with api_stack() as stack:
        yield stack


@pytest.fixture
def overviews(api, statistics):
    return Overviews(api.webhook_store, statistics, ManualClock(), DEFAULT_TIERS)


async def test_parts_are_whole_minutes_and_none_is_missing(overviews, statistics):
    """An hour has sixty parts, the last of which is this minute; parts without deliveries are there with zeros."""
    statistics.found = {START_MS: {"delivered": 3, "retrying": 1, "pending": 1}, START_MS - HOUR_MS: {"failed": 9}}
    shown = await overviews.of("acme", "1h")
    assert len(shown.buckets) == 60
    assert (shown.buckets[-1].at_ms, shown.buckets[-1].delivered, shown.buckets[-1].under_way) == (START_MS, 3, 2)
    assert (shown.total, shown.failed, shown.success) == (5, 0, 1.0)
    assert {name: len((await overviews.of("acme", name)).buckets) for name in ("6h", "24h", "7d")} == {
        "6h": 72,
        "24h": 48,
        "7d": 56,
    }


async def test_success_is_of_those_that_reached_an_end(overviews, statistics):
    """What is under way or was skipped counts for nothing; of nothing there is no rate."""
    assert (await overviews.of("acme", "6h")).success is None
    statistics.found = {START_MS: {"delivered": 3, "failed": 1, "retrying": 5, "skipped": 7}}
    assert (await overviews.of("acme", "1h")).success == 0.75


async def test_latency_is_measured_where_there_were_deliveries(overviews, statistics):
    """Percentiles by nearest rank, of each part and of all."""
    statistics.found = {START_MS: {"delivered": 1}}
    statistics.took = [float(number) for number in range(1, 101)]
    shown = await overviews.of("acme", "1h")
    assert shown.latency == shown.buckets[-1].latency == Latency(51.0, 96.0, 100.0)
    assert all(bucket.latency is None for bucket in shown.buckets[:-1])


async def test_backlog_is_told_by_tier(overviews, statistics):
    """By how long each waits; what waits for its turn is apart; where not all were counted, that is said."""
    statistics.waits = [
        WaitingDelivery(1, 60_000, START_MS + 9),
        WaitingDelivery(1, 60_000, START_MS + 7),
        WaitingDelivery(1, 300_000, START_MS + 5),
        WaitingDelivery(9, 21_600_000, START_MS + 3),
        WaitingDelivery(0, None, None),
    ]
    shown = await overviews.of("acme", "1h")
    assert [(each.tier, each.waiting, each.next_due_ms) for each in shown.backlog] == [
        ("1m", 2, START_MS + 7),
        ("5m", 1, START_MS + 5),
        ("30m", 0, None),
        ("1h", 0, None),
        ("6h", 1, START_MS + 3),
    ]
    assert (shown.at_once, shown.backlog_cut) == (1, False)
    statistics.waits = [WaitingDelivery(0, None, None)] * (MAX_WAITING + 1)
    assert (await overviews.of("acme", "6h")).backlog_cut


async def test_only_this_workspaces_webhooks_count_and_not_too_many(api, statistics, overviews, monkeypatch):
    """Another workspace's are never asked about; beyond the bound it is said that some are left out."""
    first = await api.create()
    await api.call("POST", "/webhooks", {"url": "https://hooks.example.com/", "events": []}, key="other")
    assert (await overviews.of("acme", "1h")).webhooks_cut is False
    assert statistics.asked == [[first["id"]]]
    monkeypatch.setattr(module, "MAX_WEBHOOKS", 2)
    monkeypatch.setattr(module, "_PAGE", 1)
    for _ in range(2):
        await api.create()
    shown = await overviews.of("acme", "6h")
    assert (shown.webhooks, shown.webhooks_cut) == (2, True)


async def test_an_overview_is_kept_for_some_seconds(api, statistics):
    """Many who look at once cost one count, each workspace and time by itself; then it is counted anew."""
    clock = ManualClock()
    overviews = Overviews(api.webhook_store, statistics, clock, DEFAULT_TIERS)
    await overviews.of("acme", "1h")
    clock.ms += 3_999
    await overviews.of("acme", "1h")
    await overviews.of("globex", "1h")
    assert len(statistics.asked) == 2
    clock.ms += 1
    await overviews.of("acme", "1h")
    assert len(statistics.asked) == 3


async def test_a_database_that_is_away_is_not_kept(overviews, outage):
    """The next look asks again."""
    outage.down = True
    with pytest.raises(UnavailableError):
        await overviews.of("acme", "1h")
    outage.down = False
    assert (await overviews.of("acme", "1h")).total == 0
