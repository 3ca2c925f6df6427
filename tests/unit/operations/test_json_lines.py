"""Finding the line of a part of a JSON text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.operations.json_lines import line_of

TEXT = """
{
  "a": [1,
    {"b": "x,}]\\"",
     "c": {}}
  ],
  "d": [],
  "\\u0065": 5, "f":
    6
}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 2),
        (("a",), 3),
        (("a", 0), 3),
        (("a", 1), 4),
        (("a", 1, "c"), 5),
        (("d",), 7),
        (("e",), 8),
        (("f",), 9),
        (("d", 0), 7),
        (("a", 7), 3),
        (("none", "of", "these"), 2),
        (("e", "deeper"), 8),
        (("f", 3), 9),
    ],
)
def test_the_line_is_where_the_value_begins(path, line):
    """Texts with brackets, escapes and blanks are stepped over; a path too long ends where the text does."""
    assert line_of(TEXT, path) == line


def test_of_duplicates_the_last_counts():
    """It is the one that a parser keeps."""
    assert line_of('{"a": 1,\n"a": 2}', ("a",)) == 2


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(values, st.data(), st.booleans())
def test_every_part_of_any_text_is_found(value, data, ascii_only):
    """With one value a line, the line of each part is the one on which its value stands."""
    text = json.dumps(value, indent=0, ensure_ascii=ascii_only)
    path, part = [], value
    while isinstance(part, dict | list) and part and data.draw(st.booleans()):
        step = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        path.append(step)
        part = part[step]
    rest = "\n".join(text.split("\n")[line_of(text, path) - 1 :])
    if path and isinstance(path[-1], str):
        name = json.dumps(path[-1], ensure_ascii=ascii_only)
        assert rest.startswith(f"{name}: ")
        rest = rest.removeprefix(f"{name}: ")
    assert json.JSONDecoder().raw_decode(rest)[0] == part
