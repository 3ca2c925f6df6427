"""At which byte a source record is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.decoding import decode
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import Origin
from dispatcher.core.record_faults import fault_of

ORIGIN = Origin("events", 0, 1, 1_768_473_000_000)


def fault(value, headers=()):
    """Decode a value that is no event; gives what is wrong with it."""
    with pytest.raises(UndecodableError) as refused:
        decode(value, headers, ORIGIN, None)
    return fault_of(value, refused.value)


@pytest.mark.parametrize(
    "marked",
    [
        b'{"type":"user.created",|,"data":{}}',
        b'{"type":"user.created"|',
        '{"é":"ü",|x}'.encode(),
        b'{"type":"|\xff"}',
        b'{"type":"a","workspace_id":"w","data":' + b"[" * 127 + b"|[" + b"]" * 128 + b"}",
        b'{"t":"[[[[","type":"a","data":{"n":|NaN}}',
        b'{"t":"NaN","type":"a","data":[1,|-Infinity]}',
        b'{"type":"a","data":{"s":"1e999","n":|1e999}}',
        b'{"type":"a","data":{"n":|' + b"9" * 400 + b"}}",
        b'{"data":{"type":"a"},"type":|"user created"}',
        b'{"type":|"user created","data":{"type":"a"}}',
        b'{"type":"a","type" : |7}',
        b'{"type":"a","id":|""}',
        b'{"type":"a","context":|[]}',
        b'{"type":"a","workspace_id":"w","created_at":|5}',
        b'{"type":"a","workspace_id":|"no good"}',
        b'{"specversion":|"0.3","type":"a"}',
        b'{"specversion":"1.0","source":|"","type":"a"}',
        b'{"specversion":"1.0","source":"s","data_base64":|"?"}',
        b'{"specversion":"1.0","source":"s","datacontenttype":|"text/plain"}',
        b"  |[1]",
    ],
)
def test_the_byte_is_the_one_where_it_goes_wrong(marked):
    """For each way to be no event that is in one place, the byte of that place is named (here: behind the mark)."""
    value = marked.replace(b"|", b"", 1)
    assert fault(value).byte == marked.index(b"|")


@pytest.mark.parametrize("value", [b'{"data":{}}', b'{"type":"a","data":{}}', b"", None])
def test_what_is_missing_is_nowhere(value):
    """Where something is missing there is no byte to name."""
    found = fault(value)
    assert (found.byte, bool(found.message)) == (None, True)


def test_a_fault_inside_base64_is_not_looked_for_outside():
    """The byte of an error in `data_base64` is one of what it decodes to, so none of the record's is named."""
    assert fault(b'{"specversion":"1.0","source":"s","type":"a","data_base64":"e30s"}').byte is None


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_value_has_a_fault_within_it(value):
    """Whatever bytes come, explaining them never fails, and the byte is one of theirs or their end."""
    try:
        decode(value, (), ORIGIN, None)
    except UndecodableError as error:
        found = fault_of(value, error)
        assert found.byte is None or 0 <= found.byte <= len(value)
