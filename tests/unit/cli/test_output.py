"""What commands print."""

import json

from dispatcher.cli.output import print_json, print_table, progress


def test_json_is_indented_and_in_utf_8(capsys):
    """A person can read it, and a script parses it."""
    print_json({"name": "Käse"})
    output = capsys.readouterr().out
    assert output == '{\n  "name": "Käse"\n}\n'
    assert json.loads(output) == {"name": "Käse"}


def test_columns_are_as_wide_as_their_widest_cell_and_nothing_is_cut(capsys):
    """A long value stands as it is; lines have no trailing blanks."""
    print_table(("a", "b"), [("x" * 200, "1"), ("y", "")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 200 + "  1"
    assert lines[2] == "y"


def test_a_terminal_gets_a_bar_on_standard_error(capsys):
    """The bar doesn't mix with what a script reads."""
    with progress(5_000, "events published", terminal=True) as tell:
        tell(2_500)
        tell(5_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "5000/5000" in captured.err


def test_short_work_shows_no_progress(capsys):
    """Two events need no bar."""
    with progress(2, "events published", terminal=True) as tell:
        tell(2)
    assert capsys.readouterr().err == ""
