"""How long the supervisor waits before a restart."""

from dispatcher.app.supervisor import SupervisorPolicy, restart_delay_seconds


def test_delays_double_up_to_the_longest():
    """Back-off goes 1, 2, 4 … seconds and stays at 30, however often a worker dies."""
    delays = [restart_delay_seconds(deaths, SupervisorPolicy()) for deaths in range(9)]
    assert delays == [1, 1, 2, 4, 8, 16, 30, 30, 30]
    assert restart_delay_seconds(10**6, SupervisorPolicy()) == 30
