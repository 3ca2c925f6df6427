"""Lanes by themselves: slots, queues, held deliveries, rate limits."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.in_flight_limit import INITIAL
from dispatcher.pipeline import lanes as lanes_module
from dispatcher.pipeline.lane_clock import TICK_SECONDS, LaneClock
from dispatcher.pipeline.lanes import Verdict
from tests.unit.pipeline.endpoints import Endpoints
from tests.unit.pipeline.world import subscription


def test_one_lane_borrows_every_idle_slot():
    """A single healthy endpoint with a backlog gets all slots of the process, and nothing of it is moved away."""
    world = Endpoints(max_in_flight=2_000, max_per_lane=2_000)
    for _ in range(20_000):
        verdict = world.lanes.offer(world.delivery())
        assert verdict is not Verdict.SLOW
        if verdict is Verdict.FULL:
            world.clock.now += 0.01
            world.finish(len(world.started) // 2 + 1)
    assert max(lane.limit.current for lane in world.lanes.known) == 2_000


def test_hanging_lane_moves_on():
    """A lane that nothing comes back from takes its limit, and after a second everything else goes elsewhere."""
    world = Endpoints(max_in_flight=2_000)
    assert set(world.offer(INITIAL)) == {Verdict.TAKEN}
    world.clock.now += lanes_module.SLOW_SECONDS + 0.1
    assert set(world.offer(100)) == {Verdict.SLOW}
    assert set(world.offer(10, "wh_b")) == {Verdict.TAKEN}


def test_one_lane_never_fills_the_payload_window():
    """Large events of one subscription take an eighth of the window; the next one finds room."""
    world = Endpoints(limit_bytes=8_000)
    assert world.offer(2, size=500) == [Verdict.TAKEN] * 2
    assert world.offer(1, size=500) == [Verdict.FULL]
    assert world.offer(1, "wh_b", size=500) == [Verdict.TAKEN]
    world.finish()
    assert world.offer(1, size=500) == [Verdict.TAKEN]


def test_full_process_waits_and_moves_nothing():
    """Without a free slot anywhere, a healthy lane's delivery is to be offered again."""
    world = Endpoints(max_in_flight=10)
    assert world.offer(10) == [Verdict.TAKEN] * 10
    assert world.offer(3) == [Verdict.FULL] * 3


def test_queue_is_bounded_and_in_order():
    """What exceeds the limit waits in order, up to the queue's bound, and goes as slots come back."""
    world = Endpoints(max_in_flight=10_000, max_per_lane=5)
    given_out = [world.delivery() for _ in range(lanes_module.QUEUE + 5)]
    assert {world.lanes.offer(each) for each in given_out} == {Verdict.TAKEN}
    assert world.offer(1) == [Verdict.FULL]
    seen = []
    while world.started:
        seen += [delivery for delivery, _ in world.started]
        world.clock.now += 0.01
        world.finish()
    assert seen == given_out
    assert (world.lanes.in_flight, world.lanes.queued) == (0, 0)


def test_held_deliveries_wait_beyond_the_bounds():
    """Held deliveries don't count in the process's bound, and go when their lane has a slot."""
    world = Endpoints(max_in_flight=10, max_per_lane=2)
    world.offer(2)
    for _ in range(50):
        world.lanes.hold(world.delivery())
    assert (world.lanes.held, world.lanes.has_room) == (50, True)
    assert world.offer(2, "wh_b") == [Verdict.TAKEN] * 2
    for _ in range(60):
        world.clock.now += 0.01
        world.finish()
        world.tick()
    assert (world.lanes.held, world.lanes.in_flight) == (0, 0)
    assert world.lanes._held_bytes == 0


def test_held_bytes_are_bounded():
    """No more than a quarter of the window may wait in lanes beyond their queues."""
    world = Endpoints(limit_bytes=4_000, max_per_lane=1)
    world.offer(1, size=1)
    held = 0
    while world.lanes.may_hold:
        world.lanes.hold(world.delivery(size=100))
        held += 1
    assert held == 10


def test_withdrawn_deliveries_leave_nothing():
    """Withdrawing takes exactly what was asked for out of the queues, held ones included."""
    world = Endpoints(max_per_lane=1)
    world.offer(4)
    world.lanes.hold(world.delivery())
    keep = world.delivery()
    world.lanes.offer(keep)
    assert len(world.lanes.withdraw(lambda delivery: delivery is not keep)) == 4
    assert (world.lanes.queued, world.lanes.held) == (1, 0)
    world.finish()
    assert [delivery for delivery, _ in world.started] == [keep]
    world.finish()
    assert all(not lane.held_bytes and not lane.in_flight for lane in world.lanes.known)


def test_what_is_queued_behind_a_held_delivery_never_stops_it():
    """Queued deliveries that use the whole bound up don't keep the held one before them from going."""
    world = Endpoints(max_in_flight=10, rates={"wh_a": 20.0})
    assert world.offer(1) == [Verdict.TAKEN]
    world.finish()
    world.lanes.hold(world.delivery())
    assert world.offer(10) == [Verdict.TAKEN] * 10
    assert (world.lanes.in_flight, world.lanes.queued, world.lanes.has_room) == (0, 10, False)
    for _ in range(100):
        world.clock.now += TICK_SECONDS
        world.tick()
        assert world.lanes.in_flight <= 10
        world.finish()
    assert (world.lanes.queued, world.lanes.held) == (0, 0)


def test_held_deliveries_get_slots_of_a_full_process():
    """However much is offered, a part of the slots is left to those that wait for their lane."""
    world = Endpoints(max_in_flight=64, max_per_lane=64, rates={"wh_held": 1.0})
    world.offer(1, "wh_held")
    world.finish()
    for _ in range(5):
        world.lanes.hold(world.delivery("wh_held"))
    for _ in range(400):
        world.finish(len(world.started) // 2)
        while world.lanes.offer(world.delivery("wh_busy")) is Verdict.TAKEN:
            pass
        world.clock.now += TICK_SECONDS
        world.tick()
        assert world.lanes.in_flight <= 64
    assert world.lanes.held == 0
    world.finish()
    assert sum(verdict is Verdict.TAKEN for verdict in world.offer(64, "wh_busy")) == 64


WAITING = [f"wh_{number}" for number in range(7)]


def waiting_for_their_rates(names):
    """Lanes with a delivery each that waited for a rate limit and may go now."""
    world = Endpoints(rates=dict.fromkeys(names, 1.0))
    for name in names:
        world.offer(1, name)
        world.lanes.hold(world.delivery(name))
    world.finish()
    world.clock.now += 2
    return world


def test_every_waiting_lane_gets_its_turn(monkeypatch):
    """With more waiting lanes than are looked at in one tick, each is looked at."""
    monkeypatch.setattr(lanes_module, "PUMPED_AT_ONCE", 2)
    world = waiting_for_their_rates(WAITING)
    for _ in range(4):
        world.tick()
    assert {delivery.subscription_id for delivery, _ in world.started} == set(WAITING)


def test_many_that_may_go_at_once_go_over_several_turns(monkeypatch):
    """A tick starts as many as one turn of the loop bears and says that there are more; the rest go turn by turn."""
    monkeypatch.setattr(lanes_module, "STARTED_AT_ONCE", 3)
    world = waiting_for_their_rates(WAITING)
    started = [(world.lanes.tick(), len(world.started))]
    started += [(world.lanes.pump(), len(world.started)) for _ in range(2)]
    assert started == [(True, 3), (True, 6), (False, 7)]
    assert {delivery.subscription_id for delivery, _ in world.started} == set(WAITING)


def test_a_tick_starts_nothing_while_the_turns_of_an_earlier_one_go_on(monkeypatch):
    """However many ticks come before all were started, one turn of the loop starts no more than it bears."""
    monkeypatch.setattr(lanes_module, "STARTED_AT_ONCE", 3)
    world = waiting_for_their_rates(WAITING)
    assert (world.lanes.tick(), len(world.started)) == (True, 3)
    assert (world.lanes.tick(), len(world.started)) == (False, 3)
    assert [world.lanes.pump() for _ in range(2)] == [True, False]
    assert len(world.started) == len(WAITING)
    world.lanes.hold(world.delivery("wh_new"))
    world.tick()
    assert len(world.started) == len(WAITING) + 1


def test_a_new_lane_begins_with_its_rate_limit():
    """A rate limit holds from the first request on, however often its lane was forgotten."""
    world = Endpoints(rates={"wh_a": 0.5})
    assert world.offer(3) == [Verdict.TAKEN, Verdict.SLOW, Verdict.SLOW]
    assert len(world.started) == 1


@pytest.mark.parametrize("today", [None, subscription("wh_a"), subscription("wh_a", status="inactive")])
def test_a_rate_limit_that_is_gone_holds_nobody(today):
    """What waits for a rate limit goes, or is settled, as soon as the limit or the subscription is gone."""
    world = Endpoints(rates={"wh_a": 0.001})
    world.offer(1)
    world.finish()
    for _ in range(5):
        world.lanes.hold(world.delivery())
    world.tick()
    assert world.lanes.held == 5
    world.subscriptions["wh_a"] = today
    world.tick()
    assert (world.lanes.held, len(world.started) + len(world.settled)) == (0, 5)


def test_what_is_not_sent_costs_no_token():
    """A delivery that is settled unsent leaves the rate limit's token to the next one."""
    world = Endpoints(rates={"wh_a": 0.5})
    world.offer(1)
    world.finish()
    world.clock.now += 2
    healthy, world.subscriptions["wh_a"] = world.subscriptions["wh_a"], None
    assert world.offer(3) == [Verdict.TAKEN] * 3
    world.subscriptions["wh_a"] = healthy
    assert world.offer(2) == [Verdict.TAKEN, Verdict.SLOW]
    assert (len(world.settled), len(world.started)) == (3, 1)


def test_another_tenants_event_makes_no_lane():
    """An event that names a subscription of another workspace is settled, and neither lane nor workspace is made."""
    world = Endpoints()
    world.subscriptions["wh_a"] = subscription("wh_a", workspace_id="victim")
    assert world.offer(3, "wh_a", "attacker") == [Verdict.TAKEN] * 3
    assert (len(world.settled), len(world.lanes.known), len(world.lanes._shares.workspaces)) == (3, 0, 0)
    world.lanes.hold(world.delivery("wh_a", "attacker"))
    assert (len(world.settled), world.lanes.held) == (4, 0)
    world.offer(1, "wh_a", "victim")
    (lane,) = world.lanes.known
    assert lane.workspace.id == "victim"


def test_a_lane_that_was_refused_room_is_forgotten():
    """A lane that was made for a delivery that found no room is forgotten like any idle one."""
    world = Endpoints(max_in_flight=1)
    world.offer(1)
    assert world.offer(1, "wh_b") == [Verdict.FULL]
    assert len(world.lanes.known) == 2
    world.clock.now += lanes_module.REMEMBERED_SECONDS + 1
    world.tick()
    assert [lane.subscription_id for lane in world.lanes.known] == ["wh_a"]


def test_idle_lanes_are_bounded(monkeypatch):
    """However many webhooks an event without room goes to, so many lanes are remembered and no more."""
    monkeypatch.setattr(lanes_module, "REMEMBERED", 5)
    world = Endpoints(max_in_flight=1)
    world.offer(1)
    for number in range(20):
        assert world.offer(1, f"wh_{number}") == [Verdict.FULL]
    assert [lane.subscription_id for lane in world.lanes.known] == ["wh_a", *(f"wh_{each}" for each in range(15, 20))]


def test_nothing_that_waits_is_sent_while_the_index_is_stale():
    """Neither an answer nor a tick starts what waits, whose secret or URL may be revoked; then both do again."""
    world = Endpoints(max_in_flight=10, max_per_lane=2)
    world.offer(6)
    world.gate_open = False
    world.finish()
    world.tick()
    assert (world.lanes.in_flight, world.lanes.queued) == (0, 4)
    world.gate_open = True
    world.tick()
    assert (world.lanes.in_flight, world.lanes.queued) == (2, 2)
    world.finish()
    assert (world.lanes.in_flight, world.lanes.queued) == (2, 0)


def test_a_tick_goes_on_after_an_index_that_got_stale_between_two_turns(monkeypatch):
    """The turns of a tick end where nothing may be sent any more; a later tick begins with them anew."""
    monkeypatch.setattr(lanes_module, "STARTED_AT_ONCE", 3)
    world = waiting_for_their_rates(WAITING)
    assert world.lanes.tick()
    world.gate_open = False
    assert not world.lanes.pump()
    assert not world.lanes.tick()
    assert len(world.started) == 3
    world.gate_open = True
    world.tick()
    assert len(world.started) == len(WAITING)


def test_what_waits_for_a_webhook_that_is_gone_ends_over_several_turns(monkeypatch):
    """Thousands that wait in one lane and are not to be sent any more are settled in as many turns as it takes."""
    monkeypatch.setattr(lanes_module, "STARTED_AT_ONCE", 10)
    world = Endpoints(rates={"wh_a": 0.001})
    world.offer(1)
    world.finish()
    for _ in range(25):
        world.lanes.hold(world.delivery())
    world.subscriptions["wh_a"] = None
    ended = [(world.lanes.tick(), len(world.settled))]
    ended += [(world.lanes.pump(), len(world.settled)) for _ in range(2)]
    assert ended == [(True, 10), (True, 20), (False, 25)]
    assert world.lanes.held == 0


def test_answers_of_an_old_url_teach_nothing():
    """What an endpoint answers after its URL was changed tells nothing of the new one, and gives its slot back."""
    world = Endpoints()
    world.offer(40)
    (lane,) = world.lanes.known
    world.subscriptions["wh_a"] = subscription("wh_a", url="https://other.example.com/")
    world.offer(1)
    old, world.started = world.started[:40], world.started[40:]
    for number, (delivery, _) in enumerate(old):
        delivery.id = f"del_{number}"
        world.lanes.finished(delivery, lane, seconds=9, succeeded=False, overloaded=True, is_current=False)
    assert (lane.breaker.is_open, lane.limit.current, lane.limit.latency_seconds) == (False, INITIAL, 0)
    assert (lane.in_flight, world.lanes.in_flight) == (1, 1)


def test_rate_limit_lets_through_what_it_says():
    """A subscription with 10 a second gets 10 a second; what would wait for more than a second goes elsewhere."""
    world = Endpoints(rates={"wh_a": 10.0})
    world.offer(1)
    sent, moved = 0, 0
    for _ in range(int(10 / TICK_SECONDS)):
        world.clock.now += TICK_SECONDS
        moved += world.offer(2).count(Verdict.SLOW)
        world.tick()
        sent += len(world.started)
        world.finish()
    assert 95 <= sent <= 112
    assert moved > 500


def test_rate_limit_is_shared():
    """A process that has a quarter of the group sends a quarter of the rate, at once when that is told."""
    world = Endpoints(rates={"wh_a": 40.0})
    world.offer(1)
    world.lanes.share_rates(0.25)
    sent = 0
    for _ in range(int(10 / TICK_SECONDS)):
        world.clock.now += TICK_SECONDS
        world.offer(2)
        world.tick()
        sent += len(world.started)
        world.finish()
    assert 90 <= sent <= 140


def test_a_new_url_is_a_new_endpoint():
    """What is known of an endpoint ends with its URL: limit and circuit begin anew."""
    world = Endpoints()
    for number in range(30):
        world.offer(1, "wh_a")
        world.started[-1][0].id = f"del_{number}"
        world.finish(succeeded=False)
    (lane,) = world.lanes.known
    assert lane.breaker.is_open
    world.subscriptions["wh_a"] = subscription("wh_a", url="https://other.example.com/")
    world.offer(1)
    assert not lane.breaker.is_open


def test_idle_lanes_are_forgotten():
    """An endpoint is remembered for a minute after its last request, and only so many of them."""
    world = Endpoints()
    world.offer(1)
    world.finish()
    world.tick()
    assert len(world.lanes.known) == 1
    world.clock.now += lanes_module.REMEMBERED_SECONDS + 1
    world.tick()
    assert len(world.lanes.known) == 0
    assert not world.lanes._shares.workspaces
    for number in range(lanes_module.REMEMBERED + 50):
        world.offer(1, f"wh_{number}")
        world.finish()
    assert len(world.lanes.known) == lanes_module.REMEMBERED


async def test_time_stands_still_while_the_loop_does():
    """A process that stood still for half a second finds no endpoint slow for it."""
    clock = LaneClock(lambda: None)
    await asyncio.sleep(3 * TICK_SECONDS)
    before = clock.now
    assert before > 0
    time.sleep(0.5)  # noqa: ASYNC251 - this is the stall
    await asyncio.sleep(2 * TICK_SECONDS)
    assert clock.now - before < 0.3
    clock.stop()


async def test_a_busy_process_is_told_from_one_that_waits():
    """A loop that works all the time is busy, one that rests isn't."""
    clock = LaneClock(lambda: None)
    deadline = time.monotonic() + 8
    while not clock.is_busy:
        assert time.monotonic() < deadline
        until = time.monotonic() + TICK_SECONDS / 5
        while time.monotonic() < until:
            pass
        await asyncio.sleep(0)
    while clock.is_busy:
        assert time.monotonic() < deadline
        await asyncio.sleep(TICK_SECONDS)
    clock.stop()


steps = st.lists(
    st.tuples(
        st.sampled_from(["offer", "hold", "finish", "fail", "overload", "tick", "withdraw"]),
        st.integers(0, 3),
        st.integers(1, 20),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(steps)
def test_counts_always_agree(moves):
    """Whatever happens, the counts are the sums over the lanes, and at the end everything is back to zero."""
    world = Endpoints(max_in_flight=50, max_per_lane=8, limit_bytes=40_000, rates={"wh_3": 5.0})
    for move, number, count in moves:
        world.clock.now += 0.3
        match move:
            case "offer":
                world.offer(count, f"wh_{number}", f"ws_{number % 2}")
            case "hold":
                for _ in range(count):
                    world.lanes.hold(world.delivery(f"wh_{number}", f"ws_{number % 2}"))
            case "tick":
                world.tick()
            case "withdraw":
                world.lanes.withdraw(lambda delivery, name=f"wh_{number}": delivery.subscription_id == name)
            case _:
                world.finish(count, seconds=number / 2, succeeded=move == "finish", overloaded=move == "overload")
        known = world.lanes.known
        waiting = [each for lane in known for each in lane.queue or ()]
        assert world.lanes.in_flight == sum(lane.in_flight for lane in known) == len(world.started)
        assert world.lanes.queued == sum(not each.held for each in waiting)
        assert world.lanes.held == sum(each.held for each in waiting)
        assert world.lanes.slow_in_flight == sum(lane.in_flight for lane in known if lane.is_slow)
        assert world.lanes._shares.slow_bytes == sum(lane.held_bytes for lane in known if lane.is_slow)
        assert world.lanes._shares.hanging <= 25
        assert world.lanes.in_flight <= 50 + 25
        for workspace in world.lanes._shares.workspaces.values():
            mine = [lane for lane in known if lane.workspace is workspace]
            assert workspace.long_in_flight == sum(lane.in_flight for lane in mine if not lane.is_fast)
        assert not [lane for lane in known if lane.is_fast and lane.is_slow]
        assert all(
            lane.in_flight or lane.subscription_id in (world.lanes._waiting if lane.queue else world.lanes._idle)
            for lane in known
        )
    for _ in range(3000):
        if not world.lanes.in_flight + world.lanes.queued + world.lanes.held:
            break
        world.clock.now += 0.5
        world.finish(seconds=0.01)
        world.tick()
    assert (world.lanes.in_flight, world.lanes.queued, world.lanes.held, world.lanes._held_bytes) == (0, 0, 0, 0)
    assert all(not lane.held_bytes for lane in world.lanes.known)


def test_states_are_counted():
    """Metrics tell how many endpoints are healthy, slow and cut off, without naming one."""
    world = Endpoints()
    world.offer(1, "wh_ok")
    world.slow("wh_slow")
    world.finish()
    for number in range(30):
        world.offer(1, "wh_broken")
        world.started[-1][0].id = f"del_{number}"
        world.finish(succeeded=False)
    assert world.lanes.count_states() == {"healthy": 1, "slow": 1, "circuit_open": 1}
