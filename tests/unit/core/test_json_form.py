"""The canonical JSON form, against its rules and against real Node."""

import json
import shutil
import subprocess

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.errors import UndecodableError
from dispatcher.core.json_form import MAX_NESTING, dump, number, parse

SAFE = 2**53 - 1
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=8)
)
keys = st.text(max_size=6) | st.integers(0, 2**33).map(str) | st.sampled_from(["0", "00", "4294967294", "4294967295"])
values = st.recursive(scalars, lambda child: st.lists(child, max_size=4) | st.dictionaries(keys, child, max_size=5))


def canonical(raw: bytes) -> bytes:
    document = parse(raw)
    return document.dump(document.value)


def stringified_by_node(texts: list[bytes]) -> list[bytes]:
    program = (
        "const lines=require('fs').readFileSync(0,'latin1').split('\\n');"
        "const out=lines.map(l=>JSON.stringify(JSON.parse(Buffer.from(l,'hex').toString('utf8'))));"
        "process.stdout.write(out.map(o=>Buffer.from(o,'utf8').toString('hex')).join('\\n'))"
    )
    done = subprocess.run(
        ["node", "-e", program], input="\n".join(t.hex() for t in texts), capture_output=True, text=True, check=True
    )
    return [bytes.fromhex(line) for line in done.stdout.split("\n")]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@given(st.lists(values, min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_is_what_node_writes_for_any_value(samples):
    """Whatever the value, with escapes or without, the form is that of JSON.stringify(JSON.parse(text))."""
    texts = [
        json.dumps(sample, ensure_ascii=turn % 2 == 0).encode("utf-8", "surrogatepass")
        if turn % 2 == 0 or "\\ud" not in json.dumps(sample)
        else json.dumps(sample).encode()
        for turn, sample in enumerate(samples)
    ]
    assert [canonical(text) for text in texts] == stringified_by_node(texts)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_is_what_node_writes_for_awkward_texts():
    """Number spellings, duplicate keys, escapes and index keys that a serialiser would not produce agree with Node."""
    texts = [
        b'{"a":1.0,"b":1E21,"c":-0,"d":-0.0,"e":1e-7,"f":123456789012345680000,"g":0.000001,"h":5e-324}',
        b'{"b":1,"a":2,"b":3,"10":0,"2":0,"01":0,"\\u0031":9}',
        b'["\\/","\\u007f","\\u2028","\\ud83d\\ude00","\\ud800","\\udc00x","\\u001f\\b"]',
        b" [ 1.50 , 100e-2, 12.5E+3, 1e300, 4.35, 0.1 ] ",
        b'{"":{"4294967294":1,"4294967295":2,"0":3}}',
        b"1.0",
        b"[1e15,1e14,123456789.125,0.0001,0.00012,9007199254740991,-9007199254740991]",
    ]
    assert [canonical(text) for text in texts] == stringified_by_node(texts)


@given(values)
def test_the_fast_way_and_the_slow_way_agree(value):
    """Where the fast library is trusted, it writes what the exact writer writes."""
    raw = json.dumps(value).encode()
    document = parse(raw)
    assert document.dump(document.value) == dump(document.value)


@given(values)
def test_the_form_is_its_own_form(value):
    """Bringing a canonical text into the form once more changes nothing."""
    once = canonical(json.dumps(value).encode())
    assert canonical(once) == once


@given(st.integers(2**53, 10**300) | st.integers(-(10**300), -(2**53)))
def test_larger_integers_keep_their_digits(value):
    """An integer beyond a double's precision is written with every digit it came with."""
    raw = b'{"n":%d}' % value
    assert canonical(raw) == raw


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"NaN", b"[Infinity]", b"[-Infinity]", b"[1e400]", b"[" + b"9" * 400 + b"]", b"[" + b"9" * 5000 + b"]",
     b"\xff", b'{"a":"\xff"}', b"[01]", b'["\x01"]', b"\xef\xbb\xbf{}", b"{}x", b"[" * 100_000, b"{'a':1}"],
)  # fmt: skip
def test_what_is_no_json_is_refused(raw):
    """Text that JSON.parse refuses, and numbers that no double holds, are undecodable."""
    with pytest.raises(UndecodableError):
        parse(raw)


@pytest.mark.parametrize(("depth", "accepted"), [(MAX_NESTING, True), (MAX_NESTING + 1, False)])
def test_nesting_is_bounded(depth, accepted):
    """Nesting is accepted up to the bound and not one deeper, however many siblings there are."""
    raw = b"[" * depth + b"]" * depth
    wide = b"[" + b"[]," * 500 + raw[1:-1] + b"]"
    for text in (raw, wide):
        if accepted:
            assert canonical(text) == text
        else:
            with pytest.raises(UndecodableError, match="nested deeper"):
                parse(text)


def test_the_message_names_the_byte():
    """A publisher is told at which byte the text stops being JSON, counted in bytes and not in characters."""
    with pytest.raises(UndecodableError, match="at byte 9"):
        parse('{"é":1, x}'.encode())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself(value):
    """A double's text denotes that very double."""
    assert float(number(value)) == value


def test_ordinary_events_take_the_fast_way():
    """An event with fractions, timestamps and unicode needs no slow path."""
    event = {"id": "evt_1", "at": "2026-01-15T10:30:00.123Z", "price": 9.99, "name": "Zoë", "n": [1, 2, {"ok": True}]}
    assert parse(orjson.dumps(event)).plain
