"""The clock of a running process, and its source of chance."""

import secrets
import time


class SystemClock:
    """The machine's time; implements `dispatcher.ports.Clock`."""

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


def draw(size: int) -> bytes:
    """Return that many random bytes, fit for secrets."""
    return secrets.token_bytes(size)
