"""Log entries and webhooks to test with: plain ones, and hypothesis strategies for all kinds."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin, SealedSecret, Subscription, Webhook
from dispatcher.core.urls import parse_endpoint_url

START_MS = 1_790_000_000_000


class WallClock:
    """The real time."""

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return int(time.time() * 1000)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


def entry(number: int = 1, **changes: Any) -> LogEntry:
    """Make a log entry; deliveries are told apart by `number`."""
    plain = LogEntry(
        delivery_id=f"del_{number:026}",
        workspace_id="ws_1",
        subscription_id="wh_1",
        event_id=f"evt_{number}",
        event_type="user.created",
        source="",
        origin=Origin("events", 3, 40 + number, START_MS),
        run="",
        attempt=1,
        status=DeliveryStatus.DELIVERED,
        at_ms=START_MS + number,
        duration_ms=12.5,
        response_code=200,
        response_body=b"OK",
    )
    return replace(plain, **changes)


def webhook(number: int = 1, **changes: Any) -> Webhook:
    """Make a webhook; fields of its subscription and of itself are changed by name."""
    own = {"name", "description", "created_at_ms", "updated_at_ms", "disabled_reason", "disabled_at_ms"}
    url = changes.pop("url", f"https://hooks.example.com/{number}")
    subscription = Subscription(
        id=f"wh_{number:04}",
        workspace_id="ws_1",
        url=parse_endpoint_url(url),
        events=("user.created", "team.*"),
        secrets=(SealedSecret(b"sealed"), SealedSecret(b"older", START_MS + 5)),
        headers=(("X-A", "1"),),
        api_key=b"sealed key",
        client_certificate="a certificate",
        client_key=b"sealed client key",
        rate_limit=2.5,
    )
    subscription = replace(subscription, **{key: value for key, value in changes.items() if key not in own})
    plain = Webhook(subscription, url, "Name", None, START_MS + number, START_MS + number)
    return replace(plain, **{key: value for key, value in changes.items() if key in own})


async def until(condition: Callable[[], bool], what: str, *, seconds: float = 30) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        await asyncio.sleep(0.005)


# Few values of each, so that entries meet: on a run and number, on a time, on a rank.
_texts = st.sampled_from(["", "$a", "timed out", "Überlauf", "é", "\U0001f600", "a\x00b"])
_bodies = st.sampled_from([b"", b"b", b"a", b"ab", b"\xff\xfe", b"x" * 5000])
_origins = st.builds(
    Origin,
    topic=st.sampled_from(["events", "events2"]),
    partition=st.integers(0, 2),
    offset=st.sampled_from([0, 7, 2**40]),
    timestamp_ms=st.integers(START_MS, START_MS + 1),
)


def entries_of_one_delivery() -> st.SearchStrategy[LogEntry]:
    """Entries that all tell of the same delivery."""
    return st.builds(
        LogEntry,
        delivery_id=st.just("del_x"),
        workspace_id=st.just("ws_$1"),
        subscription_id=st.just("wh_1"),
        event_id=st.just("evt_é"),
        event_type=st.sampled_from(["user.created", "user.deleted"]),
        source=st.just("$src"),
        origin=_origins,
        run=st.sampled_from(["", "rp_1", "rp_2"]),
        attempt=st.integers(0, 3),
        status=st.sampled_from(list(DeliveryStatus)),
        at_ms=st.integers(START_MS, START_MS + 2),
        duration_ms=st.sampled_from([0.0, 1.5, 30000.0]),
        response_code=st.sampled_from([0, 200, 500]),
        error=_texts,
        response_body=_bodies,
        reason=_texts,
        next_attempt_at_ms=st.none() | st.integers(START_MS, START_MS + 1),
        test=st.booleans(),
    )
