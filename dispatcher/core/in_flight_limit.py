"""How many requests one endpoint gets at a time: additive increase, multiplicative decrease.

Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance" (1989); the
doubling at the start is TCP's slow start, RFC 5681 section 3.1.
"""

INITIAL = 128
LOWEST = 1

_DECREASE = 0.5
_SMOOTHING = 0.1
_STRAINED = 2.0
_SLACK_SECONDS = 0.005
_FORGETTING = 1.001


class InFlightLimit:
    """The limit of one lane, between `LOWEST` and a bound.

    It grows while it is used and the endpoint answers about as fast as it can: by one a success until the first
    decrease, then by one for each limit's worth of successes. It halves on an answer that asks for less (a time-out,
    429, 503), once for all requests that were under way then.

    Args:
        highest: The bound.
        initial: Where it starts.

    Attributes:
        current: The limit.
        latency_seconds: Mean duration of the attempts: of all while they are few, then smoothed.
    """

    __slots__ = (
        "_best_seconds",
        "_exact",
        "_highest",
        "_ignored",
        "_starting",
        "_weight",
        "current",
        "latency_seconds",
    )

    def __init__(self, highest: int, initial: int = INITIAL) -> None:
        self._highest = highest
        self._exact = float(max(LOWEST, min(initial, highest)))
        self.current = int(self._exact)
        self._starting = True
        self._ignored = 0
        self._best_seconds = 0.0
        self._weight = 1.0
        self.latency_seconds = 0.0

    def ended(self, in_flight: int, seconds: float, *, overloaded: bool, succeeded: bool) -> None:
        """Report an attempt.

        Args:
            in_flight: How many were under way, this one included.
            seconds: How long it took.
            overloaded: Whether its outcome asks for less.
            succeeded: Whether the endpoint took the delivery.
        """
        weight = self._weight
        self.latency_seconds += (seconds - self.latency_seconds) * weight
        if weight > _SMOOTHING:
            self._weight = max(_SMOOTHING, weight / (1.0 + weight))
        sent_before_decrease = self._ignored > 0
        if sent_before_decrease:
            self._ignored -= 1
        if overloaded:
            if not sent_before_decrease:
                self._ignored = in_flight - 1
                self._starting = False
                self._set(self._exact * _DECREASE)
            return
        if not succeeded:
            return
        # The best duration is forgotten slowly: an endpoint may have moved further away.
        best = self._best_seconds * _FORGETTING
        self._best_seconds = best = seconds if seconds < best or not best else best
        if in_flight * 2 > self._exact < self._highest and self.latency_seconds < best * _STRAINED + _SLACK_SECONDS:
            self._set(self._exact + (1.0 if self._starting else 1.0 / self._exact))

    @property
    def is_strained(self) -> bool:
        """True where it takes no more at a time: by the bound, by what it asked for, by how its answers slow down."""
        if not self._starting or self.is_at_bound:
            return True
        return self.latency_seconds >= self._best_seconds * _STRAINED + _SLACK_SECONDS

    @property
    def is_at_bound(self) -> bool:
        """True where it can't grow, however well its endpoint does."""
        return self._exact >= self._highest

    def doubt_latency(self) -> None:
        """Let the next attempt alone say what the latency is: nothing came for longer than it says."""
        self._weight = 1.0

    def restart(self) -> None:
        """Begin again from the lowest: the endpoint has come back, and is not to be flooded."""
        self._starting = True
        self._ignored = 0
        self._set(LOWEST)

    def _set(self, limit: float) -> None:
        self._exact = min(max(limit, float(LOWEST)), float(self._highest))
        self.current = int(self._exact)
