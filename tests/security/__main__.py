# ruff: noqa: T201 - the table is what it prints
"""Print the table of attacks: python -m tests.security."""

from tests.security.attacks import ATTACKS

print(ATTACKS.markdown())
