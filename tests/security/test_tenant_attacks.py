"""Each attack of a tenant on the others fails as things are, and succeeds without its protection."""

from pathlib import Path

import pytest

from tests.security.inner_attacks import InnerAttack
from tests.security.tenant_attacks import TENANT_ATTACKS


@pytest.mark.parametrize("attack", TENANT_ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_fails(attack: InnerAttack) -> None:
    """With its protection in place the attack does not succeed."""
    assert not await attack.act()


@pytest.mark.parametrize("attack", TENANT_ATTACKS, ids=lambda attack: attack.name)
async def test_it_succeeds_without_its_protection(attack: InnerAttack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its protection the same attack succeeds: so it is one, and that is what stops it."""
    attack.off(monkeypatch)
    assert await attack.act()


def test_every_protection_is_where_it_is_said_to_be() -> None:
    """Each attack names a module that there is."""
    root = Path(__file__).parents[2]
    assert all((root / attack.where).is_file() for attack in TENANT_ATTACKS)
