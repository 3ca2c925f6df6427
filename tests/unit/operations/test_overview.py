"""How deliveries fare, counted and measured."""

import asyncio

import pytest

from dispatcher.core.errors import UnavailableError
from dispatcher.core.retry import DEFAULT_TIERS
from dispatcher.operations import overview as module
from dispatcher.operations.latency import Latency
from dispatcher.operations.overview import MAX_MEASURED, MAX_MEASURED_AT_ONCE, MAX_WAITING, Overviews
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
    """Percentiles of each part and of all; all deliveries are measured where there are few."""
    statistics.found = {START_MS: {"delivered": 1}}
    statistics.took = [float(number) for number in range(1, 101)]
    shown = await overviews.of("acme", "1h")
    assert shown.latency == shown.buckets[-1].latency == Latency(50.0, 95.0, 99.0)
    assert all(bucket.latency is None for bucket in shown.buckets[:-1])
    assert [part >= 1 for part, _ in statistics.parts.values()] == [True]


async def test_a_busy_part_weighs_as_much_as_it_has_deliveries(overviews, statistics):
    """Of many a part is measured, as many of each minute; a quiet minute's few don't count like a rush hour's many."""
    quiet = START_MS - HOUR_MS // 2
    statistics.found = {START_MS: {"delivered": 199_000, "failed": 1_000}, quiet: {"delivered": 2_000}}
    statistics.took_at = {START_MS: [20.0] * 2_000, quiet: [900.0] * 2_000}
    shown = await overviews.of("acme", "1h")
    assert {at_ms: part for at_ms, (part, _) in statistics.parts.items()} == {START_MS: 0.01, quiet: 1.0}
    assert min(limit for _, limit in statistics.parts.values()) > MAX_MEASURED / 2
    assert shown.latency == Latency(20.0, 20.0, 20.0)
    statistics.took_at[quiet] = [900.0] * 2_100
    assert (await Overviews(overviews._webhooks, statistics, ManualClock(), ()).of("acme", "1h")).latency.p99 == 900.0


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


@pytest.mark.parametrize(
    ("slow", "missing", "told"),
    [
        ({"counts"}, ["counts", "latency"], "Choose a shorter time"),
        ({"durations"}, ["latency"], "Choose a shorter time"),
        ({"waiting"}, ["backlog"], "metrics"),
        ({"counts", "durations", "waiting"}, ["counts", "latency", "backlog"], "metrics"),
    ],
)
async def test_each_part_that_takes_too_long_is_missing_alone(overviews, statistics, slow, missing, told):
    """What else there is shows; what is missing says what to do instead."""
    statistics.found, statistics.took = {START_MS: {"delivered": 3}}, [5.0]
    statistics.waits, statistics.slow = [WaitingDelivery(0, None, None)], slow
    shown = await overviews.of("acme", "6h")
    troubles = {name: getattr(shown, f"{name}_trouble") for name in ("counts", "latency", "backlog")}
    assert [name for name, trouble in troubles.items() if trouble] == missing
    assert told in troubles[missing[-1]]
    assert shown.total == (0 if "counts" in missing else 3)
    assert shown.at_once == (0 if "backlog" in missing else 1)
    assert (shown.latency is None) == ("latency" in missing)


async def test_no_shorter_time_is_asked_for_than_the_shortest(overviews, statistics):
    """There the word is on where rates are known besides."""
    statistics.slow = {"counts"}
    trouble = (await overviews.of("acme", "1h")).counts_trouble
    assert ("metrics" in trouble, "shorter" in trouble) == (True, False)


async def test_a_part_that_never_ends_is_left_out(overviews, statistics, monkeypatch):
    """Many queries that are each in time may be too long together."""
    monkeypatch.setattr(module, "MAX_PART_SECONDS", 0.01)
    statistics.held.clear()
    shown = await overviews.of("acme", "1h")
    assert (bool(shown.counts_trouble), bool(shown.backlog_trouble)) == (True, True)


async def test_what_took_too_long_is_not_tried_again_soon(api, statistics):
    """For half a minute the overview stays without that part."""
    clock = ManualClock()
    overviews = Overviews(api.webhook_store, statistics, clock, DEFAULT_TIERS)
    statistics.slow = {"waiting"}
    await overviews.of("acme", "1h")
    clock.ms += 29_999
    assert (await overviews.of("acme", "1h")).backlog_trouble
    assert len(statistics.asked) == 1
    clock.ms += 1
    statistics.slow = set()
    assert not (await overviews.of("acme", "1h")).backlog_trouble


async def test_whoever_asks_meanwhile_waits_for_the_same_overview(api, statistics):
    """It is made once, to its end, though the first who asked went away; it is fresh from its end on."""
    clock = ManualClock()
    overviews = Overviews(api.webhook_store, statistics, clock, DEFAULT_TIERS)
    statistics.held.clear()
    first, second = (asyncio.create_task(overviews.of("acme", "1h")) for _ in range(2))
    async with asyncio.timeout(10):
        while not statistics.asked:
            await asyncio.sleep(0)
    first.cancel()
    clock.ms += 60_000
    statistics.held.set()
    made = await second
    assert first.cancelled()
    clock.ms += 3_999
    assert await overviews.of("acme", "1h") is made
    assert len(statistics.asked) == 1


async def test_one_overview_leaves_room_for_others(overviews, statistics):
    """However many minutes it measures, few of its queries are under way at once."""
    statistics.found = {START_MS - number * 60_000: {"delivered": 1} for number in range(60)}
    under_way: list[int] = []
    most = 0

    async def durations(_, since_ms, *__):
        nonlocal most
        under_way.append(since_ms)
        most = max(most, len(under_way))
        await asyncio.sleep(0)
        under_way.remove(since_ms)
        return [1.0]

    statistics.durations = durations
    shown = await overviews.of("acme", "1h")
    assert sum(bucket.latency is not None for bucket in shown.buckets) == 60
    assert most == MAX_MEASURED_AT_ONCE
