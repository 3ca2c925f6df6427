"""Each attack on the sender fails as things are, and succeeds without its protection."""

from pathlib import Path

import pytest

from tests.security.attack_form import AttackTests
from tests.security.attacks import ATTACKS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestAttacks(AttackTests):
    """The attacks on the sender."""

    attacks = ATTACKS

    def test_the_readme_has_the_table(self) -> None:
        """The README ends with the table as it is printed: a line for each attack."""
        table = ATTACKS.markdown()
        assert Path(__file__).with_name("README.md").read_text().endswith(f"\n\n{table}\n")
        assert len(ATTACKS) == table.count("\n") - 1
