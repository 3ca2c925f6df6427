"""The table of attacks in deploy/README.md names tests that are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = re.compile(r"<!-- attacks -->\n(.*?)<!-- /attacks -->", re.DOTALL)


def rows():
    """Read the rows: attack, protection, and pairs of file and test."""
    text = (TESTS.parent / "deploy/README.md").read_text()
    for line in TABLE.search(text)[1].splitlines()[2:]:
        attack, protection, where = (cell.strip() for cell in line.strip("|").split(" | "))
        pairs, file = [], ""
        for name in re.findall(r"`([^`]+)`", where):
            if name.endswith(".py"):
                file = name
            else:
                pairs.append((file, name))
        yield attack, protection, pairs


def test_the_table_is_there():
    """Each row has an attack that no other row has, a protection and at least one test."""
    attacks = [attack for attack, protection, pairs in rows() if protection and pairs]
    assert len(attacks) == len(set(attacks)) == len(list(rows())) >= 30


@pytest.mark.parametrize(("file", "name"), sorted({pair for _, _, pairs in rows() for pair in pairs}))
def test_each_named_test_exists(file, name):
    """A test that was renamed or removed is renamed or removed in the table too."""
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
