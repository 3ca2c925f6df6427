"""Cursors: what goes in comes out, and nothing else is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import InvalidInputError
from dispatcher.mongo.cursors import decode_cursor, encode_cursor


@given(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_cursor_holds_time_and_id(created_at_ms, row_id):
    """A cursor decodes to what it was made of, and needs no escaping in a URL."""
    cursor = encode_cursor(created_at_ms, row_id)
    assert decode_cursor(cursor) == (created_at_ms, row_id)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=20))
def test_any_other_text_is_refused(text):
    """A text is a cursor, or the cursor field is named as wrong; no other error comes out."""
    try:
        created_at_ms, row_id = decode_cursor(text)
    except InvalidInputError as error:
        assert list(error.fields) == ["cursor"]  # noqa: PT017 - either way is right
    else:
        assert row_id
        assert isinstance(created_at_ms, int)


@pytest.mark.parametrize("text", ["", "abc", "é", "AAAAAAAAAAA", "AAAAAAAAAAD/", "!" * 20])
def test_broken_cursors_are_refused(text):
    """Empty, short, non-ASCII and foreign-alphabet texts are no cursors."""
    with pytest.raises(InvalidInputError, match="next_cursor"):
        decode_cursor(text)
