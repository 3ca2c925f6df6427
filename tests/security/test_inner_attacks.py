"""Each attack on secrets and readers fails as things are, and succeeds without its protection."""

import pytest

from dispatcher.pipeline import role
from tests.security.attack_form import AttackTests
from tests.security.inner_attacks import INNER_ATTACKS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "COMMIT_SECONDS", 0.02)
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0.3)


class TestInnerAttacks(AttackTests):
    """The attacks on secrets and on those who read."""

    attacks = INNER_ATTACKS
