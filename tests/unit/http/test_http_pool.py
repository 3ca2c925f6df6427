"""The keep-alive pool, on a clock that is moved by hand."""

import pytest

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
    """At the total bound the longest idle of the first key makes room."""
    kept = [Idle() for _ in range(3)] + [Idle(OTHER)]
    for one in kept:
        pool.put(one, 1000)
    assert pool.put(Idle(OTHER), 1000)
    assert [one.dropped for one in kept] == [True, False, False, False]
    assert pool.idle == 4


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
