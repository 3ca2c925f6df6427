"""Each attack fails as things are, and succeeds without its protection."""

from pathlib import Path

import pytest

from tests.security.attacks import ATTACKS, Attack, markdown

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_fails(attack: Attack, tmp_path: Path) -> None:
    """With its protection in place the attack does not succeed."""
    assert not await attack.act(tmp_path)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_it_succeeds_without_its_protection(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its protection the same attack succeeds: so it is one, and that is what stops it."""
    attack.off(monkeypatch)
    assert await attack.act(tmp_path)


def test_every_protection_is_where_the_table_says() -> None:
    """The table names modules that there are, and each attack once; the README has it."""
    root = Path(__file__).parents[2]
    assert all((root / attack.where).is_file() for attack in ATTACKS)
    assert Path(__file__).with_name("README.md").read_text().endswith(f"\n\n{markdown()}\n")
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) == markdown().count("\n") - 1
