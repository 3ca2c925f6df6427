"""Each attack on secrets and readers fails as things are, and succeeds without its protection."""

from pathlib import Path

import pytest

from dispatcher.pipeline import role
from tests.security.inner_attacks import INNER_ATTACKS, InnerAttack


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "COMMIT_SECONDS", 0.02)
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0.3)


@pytest.mark.parametrize("attack", INNER_ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_fails(attack: InnerAttack) -> None:
    """With its protection in place the attack does not succeed."""
    assert not await attack.act()


@pytest.mark.parametrize("attack", INNER_ATTACKS, ids=lambda attack: attack.name)
async def test_it_succeeds_without_its_protection(attack: InnerAttack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its protection the same attack succeeds: so it is one, and that is what stops it."""
    attack.off(monkeypatch)
    assert await attack.act()


def test_every_protection_is_where_it_is_said_to_be() -> None:
    """Each attack names a module that there is, and has a name of its own."""
    root = Path(__file__).parents[2]
    assert all((root / attack.where).is_file() for attack in INNER_ATTACKS)
    assert len({attack.name for attack in INNER_ATTACKS}) == len(INNER_ATTACKS)
