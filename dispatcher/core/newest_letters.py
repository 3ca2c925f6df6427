"""Which dead letter of a delivery is the newest: the one before it counts no more.

A million deliveries are remembered in two flat arrays, 16 bytes a place and at least a third of the places taken: 21
to 43 bytes a delivery, against about 150 of a dictionary.
"""

from array import array

_FIRST_PLACES = 1 << 12
_FULL = 3 / 4

PAYLOAD_BITS = 22
"""How many bits are kept beside a letter's time."""

_MAX_PAYLOAD = 2**PAYLOAD_BITS - 1
_MAX_AT_MS = 2 ** (64 - PAYLOAD_BITS) - 1


class NewestLetters:
    """Remembers the newest letter of each delivery: its time, and some bits of the caller's."""

    __slots__ = ("_at_most", "_count", "_keys", "_mask", "_values")

    def __init__(self) -> None:
        self._count = 0
        self._make(_FIRST_PLACES)

    def __len__(self) -> int:
        return self._count

    def put(self, identity: int, at_ms: int, payload: int) -> tuple[int, int] | None:
        """Take in a letter.

        Of two with the same time, the one that is put later is the newer.

        Args:
            identity: The delivery's, 64 bits, evenly spread.
            at_ms: The letter's time, unix milliseconds; what is out of range counts as the nearest time in it.
            payload: Kept with it, `PAYLOAD_BITS` bits.

        Returns:
            Time and payload of the older of two letters of one delivery, which may be the one that was put; None for a
            delivery's first.
        """
        key = identity or 1  # 0 is an empty place
        value = min(max(at_ms, 0), _MAX_AT_MS) << PAYLOAD_BITS | payload
        keys, mask = self._keys, self._mask
        place = key & mask
        while (found := keys[place]) != key:
            if not found:
                keys[place] = key
                self._values[place] = value
                self._count += 1
                if self._count > self._at_most:
                    self._grow()
                return None
            place = place + 1 & mask
        known = self._values[place]
        if known >> PAYLOAD_BITS > value >> PAYLOAD_BITS:
            return value >> PAYLOAD_BITS, payload
        self._values[place] = value
        return known >> PAYLOAD_BITS, known & _MAX_PAYLOAD

    def get(self, identity: int) -> tuple[int, int] | None:
        """Return time and payload of a delivery's newest letter; None where none was put."""
        key = identity or 1
        keys, mask = self._keys, self._mask
        place = key & mask
        while (found := keys[place]) != key:
            if not found:
                return None
            place = place + 1 & mask
        known = self._values[place]
        return known >> PAYLOAD_BITS, known & _MAX_PAYLOAD

    def _make(self, places: int) -> None:
        self._keys = array("Q", bytes(places * 8))
        self._values = array("Q", bytes(places * 8))
        self._mask = places - 1
        self._at_most = int(places * _FULL)

    def _grow(self) -> None:
        known = self._keys, self._values
        self._make(len(known[0]) * 2)
        keys, values, mask = self._keys, self._values, self._mask
        for key, value in zip(*known, strict=True):
            if key:
                place = key & mask
                while keys[place]:
                    place = place + 1 & mask
                keys[place] = key
                values[place] = value
