"""A watchdog on the event loop."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator

STUCK_SECONDS = 30.0


@contextlib.contextmanager
def stuck_loop_watch(stuck_seconds: float = STUCK_SECONDS) -> Iterator[None]:
    """End the process where the event loop doesn't turn for so long: its supervisor starts another.

    A process that was stopped as a whole (a debugger, a container that is paused) goes on.
    """
    loop = asyncio.get_running_loop()
    turned_at = time.monotonic()
    ended = threading.Event()

    def note() -> None:
        nonlocal turned_at
        turned_at = time.monotonic()

    def watch() -> None:
        nonlocal turned_at
        looked_at = time.monotonic()
        while not ended.wait(stuck_seconds / 10):
            now = time.monotonic()
            if now - looked_at > stuck_seconds / 2:
                turned_at = now  # this thread stood still as well: the whole process did, and may go on
            looked_at = now
            if now - turned_at > stuck_seconds:
                os.write(2, b"the event loop has not turned for too long; the process ends\n")
                os._exit(70)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(note)

    thread = threading.Thread(target=watch, name="stuck-loop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
