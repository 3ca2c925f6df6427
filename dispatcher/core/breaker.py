"""The circuit breaker of one lane: stops sending where nearly everything fails, and feels its way back.

It belongs to one subscription and its present URL. What counts are real attempts: steps that the breaker itself
skipped say nothing about the endpoint.
"""

from enum import Enum

WINDOW_SECONDS = 60
MIN_ATTEMPTS = 20
MIN_DELIVERIES = 10
FAILED_SHARE = 0.9
FIRST_PROBE_SECONDS = 5.0
MAX_PROBE_SECONDS = 60.0
PROBES_TO_CLOSE = 3

_BUCKET_SECONDS = 10


class Permit(Enum):
    """What the breaker says to one more attempt."""

    SEND = "send"
    """The circuit is closed: an ordinary attempt."""
    PROBE = "probe"
    """The circuit is open, and this attempt is to find out whether it may close; the only one at that time."""
    REFUSE = "refuse"
    """The circuit is open: send nothing."""


class _Bucket:
    __slots__ = ("attempts", "deliveries", "ends_at", "failures")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.attempts = 0
        self.failures = 0
        # No more than decide: a bucket that knows `MIN_DELIVERIES` of them has enough alone.
        self.deliveries: set[str] | None = None


class CircuitBreaker:
    """Opens on `MIN_ATTEMPTS` attempts within `WINDOW_SECONDS` of which `FAILED_SHARE` failed.

    The failures must be those of `MIN_DELIVERIES` different deliveries, so that a single one that climbs its ladder
    never opens it. While it is open, one probe at a time is let through, the first after `FIRST_PROBE_SECONDS`, then
    after twice as long each time up to `MAX_PROBE_SECONDS`; a probe that succeeds is followed by the next at once,
    and `PROBES_TO_CLOSE` in a row close it. The window moves in steps of 10 s. Times are seconds that never go back.

    Attributes:
        is_open: True while ordinary attempts are refused; asked for each delivery, so a plain attribute.
    """

    __slots__ = ("_bucket", "_buckets", "_next_probe_at", "_pause_seconds", "_probing", "_succeeded_probes", "is_open")

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._bucket: _Bucket | None = None
        self.is_open = False
        self._probing = False
        self._next_probe_at = 0.0
        self._pause_seconds = FIRST_PROBE_SECONDS
        self._succeeded_probes = 0

    @property
    def has_failures(self) -> bool:
        """True while the window, as of the last attempt, knows of a failure."""
        return any(bucket.failures for bucket in self._buckets)

    def refuses(self, now: float) -> bool:
        """Say whether an attempt would be refused now."""
        return self.is_open and (self._probing or now < self._next_probe_at)

    def permit(self, now: float) -> Permit:
        """Say whether an attempt may be made; a probe that is granted must be reported or given back."""
        if not self.is_open:
            return Permit.SEND
        if self.refuses(now):
            return Permit.REFUSE
        self._probing = True
        return Permit.PROBE

    def record(self, now: float, delivery_id: str, *, succeeded: bool) -> None:
        """Report an ordinary attempt; those that were under way when the circuit opened change nothing."""
        bucket = self._bucket
        if bucket is None or now >= bucket.ends_at:
            bucket = self._begin(now)
        bucket.attempts += 1
        if succeeded or self.is_open:
            return
        bucket.failures += 1
        if bucket.deliveries is None:
            bucket.deliveries = {delivery_id}
        elif len(bucket.deliveries) < MIN_DELIVERIES:
            bucket.deliveries.add(delivery_id)
        if self._must_open():
            self.is_open = True
            self._pause_seconds = FIRST_PROBE_SECONDS
            self._rest(now)

    def probe_ended(self, now: float, *, succeeded: bool) -> None:
        """Report the probe."""
        self._probing = False
        if not succeeded:
            self._pause_seconds = min(self._pause_seconds * 2, MAX_PROBE_SECONDS)
            self._rest(now)
            return
        self._succeeded_probes += 1
        self._next_probe_at = now
        if self._succeeded_probes >= PROBES_TO_CLOSE:
            self.is_open = False
            self._buckets.clear()
            self._bucket = None

    def probe_unused(self) -> None:
        """Give a probe back that was not made: the next attempt is one."""
        self._probing = False

    def _rest(self, now: float) -> None:
        self._succeeded_probes = 0
        self._next_probe_at = now + self._pause_seconds

    def _begin(self, now: float) -> _Bucket:
        buckets = self._buckets
        ends_at = float((now // _BUCKET_SECONDS + 1) * _BUCKET_SECONDS)
        while buckets and buckets[0].ends_at <= ends_at - WINDOW_SECONDS:
            del buckets[0]
        self._bucket = bucket = _Bucket(ends_at)
        buckets.append(bucket)
        return bucket

    def _must_open(self) -> bool:
        attempts = failures = 0
        deliveries: set[str] = set()
        for bucket in self._buckets:
            attempts += bucket.attempts
            failures += bucket.failures
            deliveries.update(bucket.deliveries or ())
        return attempts >= MIN_ATTEMPTS and failures >= attempts * FAILED_SHARE and len(deliveries) >= MIN_DELIVERIES
