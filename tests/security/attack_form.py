"""What an attack is, and what is tried of each: that it fails as things are, and succeeds without its protection.

A list of attacks is a module with an `Attacks` whose `attack` registers functions that say whether they succeeded; its
test is a class with that list:

    class TestTenantAttacks(AttackTests):
        attacks = TENANT_ATTACKS
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

Act = Callable[[Path], Awaitable[bool]]
Off = Callable[[pytest.MonkeyPatch], None]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: What is tried.
        protection: What stops it.
        where: The module that does.
        act: Tries it with a folder of its own; says whether it succeeded.
        off: Takes the protection out.
    """

    name: str
    protection: str
    where: str
    act: Act
    off: Off


class Attacks(list[Attack]):
    """Attacks in the order in which they are registered."""

    def attack(self, name: str, *, protection: str, where: str, off: Off) -> Callable[[Act], Act]:
        """Register an attack."""

        def register(act: Act) -> Act:
            self.append(Attack(name, protection, where, act, off))
            return act

        return register

    def markdown(self) -> str:
        """Write the attacks as a table: attack, protection, where."""
        rows = [f"| {each.name} | {each.protection} | `{each.where}` |" for each in self]
        return "\n".join(["| attack | protection | where |", "| --- | --- | --- |", *rows])


class AttackTests:
    """What is tried of each list of attacks.

    Attributes:
        attacks: The list.
    """

    attacks: ClassVar[Attacks]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each attack; pytest asks for this by its name."""
        if "attack" in metafunc.fixturenames:
            metafunc.parametrize("attack", self.attacks, ids=lambda attack: attack.name)

    async def test_an_attack_fails(self, attack: Attack, tmp_path: Path) -> None:
        """With its protection in place the attack does not succeed."""
        assert not await attack.act(tmp_path)

    async def test_it_succeeds_without_its_protection(
        self, attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without its protection the same attack succeeds: so it is one, and that is what stops it."""
        attack.off(monkeypatch)
        assert await attack.act(tmp_path)

    def test_every_protection_is_where_it_is_said_to_be(self) -> None:
        """Each attack names a module that there is, and has a name of its own."""
        assert self.attacks
        assert all((_ROOT / attack.where).is_file() for attack in self.attacks)
        assert len({attack.name for attack in self.attacks}) == len(self.attacks)
