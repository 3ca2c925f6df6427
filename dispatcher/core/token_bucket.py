"""A subscription's rate limit: a token bucket."""

_WHOLE = 1.0 - 1e-9  # sums of fractions fall a little short


class TokenBucket:
    """Lets through `rate` a second on average, and at most one second's worth at once.

    Times are seconds that never go back.

    Args:
        rate: Tokens a second; above 0.
        now: The time; the bucket starts with one token, so that many buckets made at once are no burst.
    """

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._at = now
        self._tokens = 1.0

    def take(self, now: float) -> bool:
        """Take a token; False where there is none."""
        if not self.has_token(now):
            return False
        self._tokens -= 1.0
        return True

    def has_token(self, now: float) -> bool:
        """Say whether there is a token."""
        self._fill(now)
        return self._tokens >= _WHOLE

    def give_back(self) -> None:
        """Put a token back that was taken for nothing."""
        self._tokens += 1.0

    def wait_seconds(self, now: float) -> float:
        """Return how long it takes until there is a token."""
        self._fill(now)
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate; what was gathered stays, up to the new bound."""
        self._fill(now)
        self._rate = rate
        self._tokens = min(self._tokens, max(1.0, rate))

    def _fill(self, now: float) -> None:
        self._tokens = min(self._tokens + (now - self._at) * self._rate, max(1.0, self._rate))
        self._at = now
