"""The delivery id: the same for one event and one subscription, whenever and by whomever it is derived."""

import hashlib
from functools import lru_cache

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TRIPLES = [pair + low for pair in _PAIRS for low in _ALPHABET]


class DeliveryIds:
    """Derives the delivery ids of one event.

    The id is `del_` and 26 base32 characters (RFC 4648, lower case) of SHA-256 over the length-prefixed
    workspace, source, event id and subscription id: 130 bits.

    Args:
        workspace_id: The event's workspace.
        source: CloudEvents source, else empty.
        event_id: The event's id.
    """

    __slots__ = ("_prefix",)

    def __init__(self, workspace_id: str, source: str, event_id: str) -> None:
        raw = event_id.encode("utf-8", "surrogatepass")
        self._prefix = hashlib.sha256(_known(workspace_id) + _known(source) + len(raw).to_bytes(4, "big") + raw)

    def of(self, subscription_id: str) -> str:
        """Return the id of this event's delivery to a subscription."""
        digest = self._prefix.copy()
        digest.update(_known(subscription_id))
        bits = int.from_bytes(digest.digest()[:17], "big") >> 6  # the first 130 bits
        # Written out, it takes half the time of a loop.
        return (
            f"del_{_TRIPLES[bits >> 115]}{_TRIPLES[bits >> 100 & 32767]}{_TRIPLES[bits >> 85 & 32767]}"
            f"{_TRIPLES[bits >> 70 & 32767]}{_TRIPLES[bits >> 55 & 32767]}{_TRIPLES[bits >> 40 & 32767]}"
            f"{_TRIPLES[bits >> 25 & 32767]}{_TRIPLES[bits >> 10 & 32767]}{_PAIRS[bits & 1023]}"
        )


@lru_cache(16_384)
def _known(text: str) -> bytes:
    """Return a text with its length in front; for those that come again and again."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(4, "big") + raw
