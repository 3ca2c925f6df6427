"""What one tenant's endpoints, or slow ones together, may take from the others."""

import pytest

from dispatcher.pipeline.lanes import QUEUE, SLOW_SECONDS, Verdict
from tests.unit.pipeline.endpoints import Endpoints


@pytest.mark.parametrize("others", [True, False])
def test_slow_lanes_share_half(others):
    """Slow lanes together take half of the slots while healthy ones have work, and all of them otherwise."""
    world = Endpoints(max_in_flight=400)
    for number in range(20):
        world.slow(f"wh_{number}")
    world.clock.now += 10
    taken = 0
    for number in range(20):
        if others:
            world.offer(1, "wh_healthy")
        taken += world.offer(50, f"wh_{number}").count(Verdict.TAKEN)
    assert taken == (200 if others else 400)
    assert world.lanes.slow_in_flight == taken


@pytest.mark.parametrize("others", [True, False])
def test_workspace_share(others):
    """Lanes that hold slots for long get a quarter for their workspace while another has work, and all otherwise."""
    world = Endpoints(max_in_flight=400)
    for number in range(10):
        world.offer(1, f"wh_{number}", "large")
        for _ in range(50):
            world.clock.now += 0.5
            world.finish(seconds=0.5)
            world.offer(1, f"wh_{number}", "large")
        world.finish(seconds=0.5)
    world.clock.now += 10
    taken = 0
    for number in range(10):
        if others:
            world.offer(1, "wh_small", "small")
        taken += world.offer(60, f"wh_{number}", "large").count(Verdict.TAKEN)
    assert taken == (100 if others else 400)


def test_one_late_answer_is_no_fast_endpoint():
    """Endpoints that were fast and hang get no more than their share when their first answers come, 9 s late."""
    world = Endpoints()
    names = [f"wh_{number}" for number in range(20)]
    for name in names:
        world.offer(10, name)
        world.finish()
    for name in names:
        world.offer(10, name)
    for _ in range(9):
        world.clock.now += 1
        world.offer(1, "wh_healthy")
        for name in names:
            world.offer(5, name)
        healthy, world.started = world.started[-1:], world.started[:-1]
        world.lanes.finished(*healthy[0], seconds=0.01, succeeded=True, overloaded=False)
    assert world.lanes.in_flight == 200
    world.started = world.started[::10] + [each for number, each in enumerate(world.started) if number % 10]
    world.finish(len(names), seconds=9.0)
    world.offer(1, "wh_healthy")
    for name in names:
        world.offer(10, name)
    assert world.lanes.in_flight <= world.max_in_flight // 2 + 1
    assert world.offer(1, "wh_healthy") == [Verdict.TAKEN]


def test_fresh_endpoints_that_hang_leave_room():
    """Thousands of new webhooks of one workspace, one hanging request each, leave the others their slots."""
    world = Endpoints()
    world.offer(1, "wh_good", "good")
    world.finish()
    for number in range(1_000):
        world.clock.now += 0.001
        world.offer(1, f"wh_bad_{number}", "bad")
        if number % 10 == 0:
            assert world.offer(1, "wh_good", "good") == [Verdict.TAKEN]
            world.lanes.finished(*world.started.pop(), seconds=0.005, succeeded=True, overloaded=False)
    assert world.lanes.in_flight == world.max_in_flight // 4
    for seconds in (1.5, 5, 20):
        world.clock.now += seconds
        world.tick()
        assert world.offer(1, "wh_good", "good") == [Verdict.TAKEN]
        assert world.offer(1, f"wh_new_{seconds}", "good") == [Verdict.TAKEN]


def test_who_comes_back_after_a_while_finds_room():
    """While another workspace is only known of, new webhooks that hang take three quarters and no more."""
    world = Endpoints()
    world.offer(1, "wh_good", "good")
    world.finish()
    world.clock.now += 10
    verdicts = [world.offer(1, f"wh_bad_{number}", "bad")[0] for number in range(1_000)]
    assert (verdicts.count(Verdict.TAKEN), verdicts.count(Verdict.LATER)) == (300, 700)
    world.clock.now += SLOW_SECONDS + 0.1
    assert world.offer(1, "wh_bad_1000", "bad") == [Verdict.SLOW]
    assert world.offer(100, "wh_good", "good") == [Verdict.TAKEN] * 100


def test_endpoints_that_were_fast_and_hang_are_made_up_for():
    """Known fast endpoints that all hang at once have every slot; a second later others get half as many more."""
    world = Endpoints()
    for number in range(world.max_in_flight):
        world.offer(1, f"wh_bad_{number}", "bad")
        world.finish()
    for number in range(world.max_in_flight):
        world.offer(1, f"wh_bad_{number}", "bad")
    assert world.offer(1, "wh_good", "good") == [Verdict.FULL]
    world.clock.now += SLOW_SECONDS + 0.1
    world.tick()
    assert world.offer(1, "wh_good", "good") == [Verdict.TAKEN]
    assert world.offer(1, "wh_bad_new", "bad") == [Verdict.SLOW]
    assert world.offer(1, "wh_bad_0", "bad") == [Verdict.SLOW]
    for number in range(300):
        world.offer(1, f"wh_good_{number}", "good")
        world.lanes.finished(*world.started.pop(), seconds=0.01, succeeded=True, overloaded=False)
    assert world.lanes.in_flight <= world.max_in_flight * 3 // 2


def test_a_slow_workspace_alone_has_every_slot():
    """Endpoints that take half a second, all of one tenant and with nobody else there, are not moved away."""
    world = Endpoints()
    for _ in range(3):
        verdicts = [world.offer(1, f"wh_{number % 50}")[0] for number in range(1_000)]
        assert Verdict.SLOW not in verdicts
        assert world.lanes.in_flight == world.max_in_flight
        world.clock.now += 0.5
        world.finish(seconds=0.5)


@pytest.mark.parametrize("busy", [True, False])
def test_a_limited_endpoint_stops_nobody(busy):
    """An endpoint that takes 1,000 a second of 5,000 keeps no other waiting, unless the process is what is slow."""
    world = Endpoints(max_in_flight=4_096, max_per_lane=64)
    world.clock.is_busy = busy
    world.offer(64, "wh_bad", "bad")
    world.finish(5, succeeded=False, overloaded=True)
    world.finish()
    world.offer(1, "wh_good", "good")
    world.finish()
    verdicts, good = [], 0
    for _ in range(1_000):
        world.clock.now += 0.001
        world.finish(1, seconds=0.01)
        for _ in range(5):
            if world.offer(1, "wh_bad", "bad") == [Verdict.FULL]:
                verdicts.append(Verdict.FULL)
                break
        else:
            good += world.offer(1, "wh_good", "good") == [Verdict.TAKEN]
    assert (good == 1_000) is not busy
    assert (Verdict.FULL in verdicts) is busy
    assert world.lanes.queued <= 2 * QUEUE


@pytest.mark.parametrize("busy", [True, False])
def test_an_endpoint_at_its_bound_stops_nobody(busy):
    """A webhook with all the requests that it may have keeps no other waiting, however busy the process is."""
    world = Endpoints(max_in_flight=4_096, max_per_lane=10)
    world.clock.is_busy = busy
    world.offer(1, "wh_good", "good")
    world.finish()
    for _ in range(500):
        world.clock.now += 0.001
        world.finish(1, seconds=0.01)
        assert Verdict.FULL not in world.offer(5, "wh_bad", "bad")
        assert world.offer(1, "wh_good", "good") == [Verdict.TAKEN]
    assert world.lanes.queued <= 2 * QUEUE


def test_a_limited_endpoint_alone_is_waited_for():
    """With nobody else there, what a limited endpoint takes no more of at once waits in Kafka."""
    world = Endpoints(max_in_flight=4_096, max_per_lane=10)
    world.offer(10)
    world.finish(5, seconds=0.001, succeeded=False, overloaded=True)
    world.finish(seconds=0.001)
    world.offer(10)
    assert {verdict for _ in range(2 * QUEUE) for verdict in world.offer(1)} == {Verdict.TAKEN, Verdict.FULL}


def test_unknown_endpoints_that_answer_are_waited_for():
    """A fan-out to new webhooks that answer in 300 ms goes on at its share beside another tenant; nothing moves."""
    world = Endpoints()
    left, verdicts = list(range(1_000)), set()
    for _ in range(200):
        world.offer(1, "wh_good", "good")
        while left:
            verdicts.add(verdict := world.offer(1, f"wh_{left[-1]}", "bad")[0])
            if verdict is not Verdict.TAKEN:
                break
            left.pop()
        assert world.lanes.in_flight <= world.max_in_flight // 4 + 4
        world.clock.now += 0.1
        over = [each for each in world.started if world.clock.now - each[0].started_at > 0.29]
        world.started = [each for each in world.started if each not in over]
        for delivery, lane in over:
            world.lanes.finished(delivery, lane, seconds=0.3, succeeded=True, overloaded=False)
    assert (left, verdicts) == ([], {Verdict.TAKEN, Verdict.LATER})


def test_large_events_of_one_lane_stop_nobody():
    """A lane that has its part of the payload window moves on while another tenant has work."""
    world = Endpoints(limit_bytes=8_000)
    world.offer(2, "wh_large", "large", size=500)
    assert world.offer(1, "wh_large", "large", size=500) == [Verdict.FULL]
    world.offer(1, "wh_good", "good")
    assert world.offer(1, "wh_large", "large", size=500) == [Verdict.SLOW]


def test_a_resting_webhook_makes_no_neighbour():
    """A tenant's limited backlog isn't moved away because another webhook of its own was used a while ago."""
    world = Endpoints(max_in_flight=4_096, max_per_lane=20)
    world.offer(1, "wh_other")
    world.finish()
    assert Verdict.SLOW not in world.offer(2 * QUEUE)


def test_a_pause_of_a_healthy_lane_stops_nobody_beside_slow_ones():
    """With slow lanes at their share, a healthy lane that pauses for half a second still gets what it is offered."""
    world = Endpoints()
    for number in range(20):
        world.slow(f"wh_{number}", "slow")
    world.offer(1, "wh_healthy")
    world.finish(seconds=0.01)
    for number in range(20):
        world.offer(1, "wh_healthy")
        world.lanes.finished(*world.started.pop(), seconds=0.01, succeeded=True, overloaded=False)
        world.offer(50, f"wh_{number}", "slow")
    assert world.lanes.slow_in_flight >= world.max_in_flight // 4
    world.offer(1, "wh_healthy")
    world.clock.now += 0.5
    assert world.offer(3, "wh_healthy") == [Verdict.TAKEN] * 3


@pytest.mark.parametrize(("held", "verdict"), [(0.1, Verdict.TAKEN), (0.6, Verdict.SLOW)])
def test_an_event_counts_once_in_the_window_however_many_slow_lanes_hold_it(held, verdict):
    """Slow lanes have their share of the bytes only where so many are held, and not each event once a delivery."""
    world = Endpoints(limit_bytes=1_000_000)
    world.lanes._window.held_bytes = int(held * world.limit_bytes)
    names = [f"wh_{number}" for number in range(7)]
    for name in names:
        world.slow(name)
    world.offer(1, "wh_healthy", "good")
    assert [world.offer(1, name, size=100_000) for name in names] == [[Verdict.TAKEN]] * 5 + [[verdict]] * 2


def test_slow_lanes_take_turns():
    """Of slow lanes with a backlog each gets slots of the share in time; none keeps its own for ever."""
    world = Endpoints(max_in_flight=64)
    names = [f"wh_{number}" for number in range(16)]
    for name in names:
        world.slow(name, name)
    seen = set()
    for name in names:
        for _ in range(200):
            world.lanes.hold(world.delivery(name, name))
    for _ in range(400):
        world.clock.now += 0.25
        world.offer(1, "wh_healthy", "good")
        world.tick()
        seen |= {delivery.subscription_id for delivery, _ in world.started}
        over = [each for each in world.started if world.clock.now - each[0].started_at >= 2]
        world.started = [each for each in world.started if each not in over]
        for delivery, lane in over:
            world.lanes.finished(delivery, lane, seconds=2.0, succeeded=True, overloaded=False)
    assert set(names) <= seen
