"""The README says what the code says."""

from pathlib import Path

from dispatcher.cli.settings import markdown

README = Path(__file__).parents[2] / "README.md"


def test_the_settings_are_those_of_the_code():
    """The table of settings is the generated one (mend it with: dispatcher settings --markdown)."""
    _, _, behind = README.read_text().partition("<!-- settings -->\n")
    assert behind.partition("\n<!-- /settings -->")[0] == markdown()
