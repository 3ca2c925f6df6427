"""Makes new inputs out of recorded ones: the same from the same seed."""

from random import Random

MAX_INPUT_BYTES = 300_000

_TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-1", b"ffffffffffffffff", b"\xff", b"\x80",
    b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2 200\r\n", b"200 OK\r\n", b"100 Continue\r\n\r\n", b"101 Switching\r\n",
    b"204 No\r\n\r\n", b"304 N\r\n\r\n", b"999 X\r\n", b"Content-Length: ", b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive, upgrade\r\n", b"Upgrade: h2c\r\n", b"Retry-After: ", b"Retry-After: 99999999999\r\n",
    b"\r\n\r\n", b"0\r\n\r\n", b"1;x\r\n", b"{", b"}", b"[", b"]", b'"', b"\\u0000", b"\\ud800", b"1e999", b"null",
)  # fmt: skip


def mutated(seeds: list[bytes], chance: Random) -> bytes:
    """Make one input: a seed, or two of them joined, changed in one to eight places."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        _CHANGES[chance.randrange(len(_CHANGES))](data, seeds, chance)
    return bytes(data[:MAX_INPUT_BYTES])


def cuts_of(length: int, chance: Random) -> list[int]:
    """Choose where an input is cut into pieces: nowhere, at a few places, or after every byte of its beginning."""
    kind = chance.randrange(4)
    if kind == 0:
        return []
    if kind == 1:
        return list(range(min(length, 200)))
    return [chance.randint(0, length) for _ in range(chance.randint(1, 8))]


def _span(data: bytearray, chance: Random) -> tuple[int, int]:
    begin = chance.randint(0, len(data))
    return begin, min(len(data), begin + chance.choice((1, 2, 4, 16, 64, 1024)))


def _flip(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 9, 10, 13, 32, 58, 127, 128, 255))


def _insert(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice(_TOKENS)


def _remove(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    begin, end = _span(data, chance)
    del data[begin:end]


def _stretch(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    begin, end = _span(data, chance)
    times = chance.choice((2, 3, 40, 1000, 20_000))
    if (end - begin) * times <= MAX_INPUT_BYTES:
        data[begin:end] = data[begin:end] * times


def _splice(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    other = chance.choice(seeds)
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


def _move(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    begin, end = _span(data, chance)
    part = bytes(data[begin:end])
    del data[begin:end]
    at = chance.randint(0, len(data))
    data[at:at] = part


def _noise(data: bytearray, seeds: list[bytes], chance: Random) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.randbytes(chance.choice((1, 4, 32)))


_CHANGES = (_flip, _set, _insert, _insert, _remove, _stretch, _splice, _move, _noise)
