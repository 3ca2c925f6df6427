"""The keep-alive pool, on a clock that is moved by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http.pool import IDLE_SECONDS, MAX_AGE_SECONDS, Pool

KEY = ("http", "a.example", 80, None)
OTHER = ("http", "b.example", 80, None)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Idle:
    """A connection as the pool sees it."""

    def __init__(self, key=KEY, opened_at=1000.0) -> None:
        self.key = key
        self.opened_at = opened_at
        self.idle_since = opened_at
        self.dropped = False

    def drop(self) -> None:
        """Note that it was closed."""
        self.dropped = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def pool(clock):
    made = Pool(clock=clock, max_idle=4, max_idle_per_key=3)
    yield made
    made.close()


async def test_the_last_one_put_is_taken_first(pool):
    """A key's connections come back youngest first, and another key's never."""
    first, second, other = Idle(), Idle(), Idle(OTHER)
    assert all(pool.put(one, 1000) for one in (first, second, other))
    assert [pool.take(KEY, 1001) for _ in range(3)] == [second, first, None]
    assert pool.idle == 1


async def test_stale_connections_are_dropped_when_taken(pool):
    """What has been idle too long, or is too old, is closed instead of used."""
    idle, old = Idle(), Idle(OTHER, opened_at=1000 - MAX_AGE_SECONDS + 1)
    pool.put(idle, 1000)
    pool.put(old, 1000)
    assert pool.take(KEY, 1000 + IDLE_SECONDS) is None
    assert pool.take(OTHER, 1001) is None
    assert idle.dropped
    assert old.dropped
    assert pool.idle == 0


async def test_an_old_connection_is_not_kept(pool):
    """A connection past its age ends after the exchange that it was in."""
    assert not pool.put(Idle(opened_at=1000 - MAX_AGE_SECONDS), 1000)
    assert pool.idle == 0


async def test_a_key_has_its_bound(pool):
    """A key's connections beyond its bound are not kept."""
    assert [pool.put(Idle(), 1000) for _ in range(4)] == [True, True, True, False]


async def test_all_keys_together_have_a_bound(pool):
    """At the total bound the longest idle of the key that has more than its share makes room."""
    kept = [Idle() for _ in range(3)] + [Idle(OTHER)]
    for one in kept:
        pool.put(one, 1000)
    assert pool.put(Idle(OTHER), 1000)
    assert [one.dropped for one in kept] == [True, False, False, False]
    assert pool.idle == 4


async def test_a_key_that_has_its_share_makes_room_for_itself(clock):
    """However many connections of one key become idle, the few of the others stay."""
    pool = Pool(clock=clock, max_idle=100)
    others = [Idle(("https", f"{number}.example", 443, None)) for number in range(20)]
    flood = [Idle() for _ in range(500)]
    for one in others + flood:
        assert pool.put(one, 1000)
    assert not any(one.dropped for one in others)
    assert [one.dropped for one in flood] == [True] * 420 + [False] * 80
    assert pool.idle == 100
    late = [Idle(("https", f"late{number}.example", 443, None)) for number in range(30)]
    for one in late:
        pool.put(one, 1000)
    assert not any(one.dropped for one in others + late)
    assert pool.idle == 100
    pool.close()


async def test_a_key_at_its_share_takes_nothing_from_another_at_its_share(clock):
    """Where two keys have half each, one more of either makes room among its own."""
    pool = Pool(clock=clock, max_idle=10)
    halves = [[Idle(key) for _ in range(5)] for key in (KEY, OTHER)]
    for one in (*halves[0], *halves[1]):
        pool.put(one, 1000)
    assert pool.put(Idle(OTHER), 1000)
    assert [[one.dropped for one in half] for half in halves] == [[False] * 5, [True, *[False] * 4]]
    assert pool.put(Idle(KEY), 1000)
    assert [[one.dropped for one in half] for half in halves] == [[True, *[False] * 4]] * 2
    pool.close()


async def test_keys_with_one_each_make_room_in_turn(clock):
    """Where nobody has more than a share, each key gives one before any gives a second, and none is lost."""
    pool = Pool(clock=clock, max_idle=10)
    made = [Idle(("https", f"{number}.example", 443, None)) for number in range(40)]
    for one in made:
        pool.put(one, 1000)
    assert [one.dropped for one in made] == [True] * 30 + [False] * 10
    # A key whose only connection is in use keeps its place when it comes back.
    busy = pool.take(made[30].key, 1000)
    for number in range(40, 50):
        pool.put(Idle(("https", f"{number}.example", 443, None)), 1000)
    assert pool.put(busy, 1000)
    assert pool.take(busy.key, 1000) is busy
    assert pool.idle == 9 == sum(map(len, pool._stacks.values()))
    pool.close()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=300))
def test_the_pool_never_loses_or_doubles_a_connection(steps):
    """Whatever is put and taken, each connection is idle once, taken or dropped, and the count is right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncio.get_running_loop", _NoLoop)
        pool = Pool(clock=lambda: 1000, max_idle=8, max_idle_per_key=5)
    alive: dict[Idle, bool] = {}
    for number, putting in steps:
        key = ("https", f"{number}.example", 443, None)
        if putting:
            one = Idle(key)
            alive[one] = pool.put(one, 1000)
        elif (one := pool.take(key, 1000)) is not None:
            assert alive.pop(one)
            assert not one.dropped
            assert one.key == key
    idle = [one for stack in pool._stacks.values() for one in stack]
    assert set(idle) == {one for one, kept in alive.items() if kept and not one.dropped}
    assert len(idle) == len(set(idle)) == pool.idle <= 8


class _NoLoop:
    def call_later(self, _delay, _callback):
        """Have no timer."""


async def test_the_sweep_drops_what_is_stale_and_nothing_else(pool, clock):
    """Connections that nobody asks for are closed by the sweep, and empty keys are forgotten."""
    stale, old, fresh = Idle(), Idle(opened_at=1000 - MAX_AGE_SECONDS + 20), Idle(OTHER)
    pool.put(old, 1000)
    pool.put(stale, 1000)
    pool.put(fresh, 1020)
    clock.now = 1000 + IDLE_SECONDS
    pool._sweep()
    assert (stale.dropped, old.dropped, fresh.dropped) == (True, True, False)
    assert list(pool._stacks) == [OTHER]
    assert pool.idle == 1


async def test_the_sweep_ends_with_the_last_connection(pool, clock):
    """An empty pool has no timer, and the next connection starts it again."""
    pool.put(Idle(), 1000)
    clock.now = 2000
    pool._sweep()
    assert pool._sweeper is None
    pool.put(Idle(opened_at=2000), 2000)
    assert pool._sweeper is not None


async def test_a_forgotten_connection_is_never_taken(pool):
    """A connection that closed by itself leaves the pool; forgetting it twice does nothing."""
    closed, other = Idle(), Idle()
    pool.put(closed, 1000)
    pool.put(other, 1000)
    for _ in range(2):
        pool.forget(closed)
    assert [pool.take(KEY, 1000), pool.take(KEY, 1000)] == [other, None]
    assert pool.idle == 0


async def test_a_closed_pool_keeps_nothing(pool):
    """Closing drops every connection and refuses later ones."""
    one = Idle()
    pool.put(one, 1000)
    pool.close()
    assert one.dropped
    assert not pool.put(Idle(), 1000)
    assert pool.take(KEY, 1000) is None
