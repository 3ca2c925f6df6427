"""Where `deploy/compile.py` refuses to make its copy; no compiler is found, so that none is made."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path):
    """A tree like the project's, and what is in it."""
    for name in (
        "tree/dispatcher/core/retry.py",
        "tree/schemas/retry.json",
        "tree/pyproject.toml",
        "tree/notes/of.mine",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tree/deploy").mkdir()
    shutil.copy(ROOT / "deploy/compile.py", tmp_path / "tree/deploy")
    return tmp_path / "tree"


def compile_to(tree, target):
    """Make a copy where a stranger to the tree would; gives what was said, once nothing is known to be gone."""
    before = sorted(tree.parent.rglob("*"))
    done = subprocess.run(
        [sys.executable, "deploy/compile.py", target],
        cwd=tree, env={"PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sorted(tree.parent.rglob("*")) == before
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize("target", [".", "..", "dispatcher", "dispatcher/core", "dispatcher/copy", "schemas"])
def test_the_source_is_no_place_for_its_copy(tree, target):
    """A folder that is, holds or is part of the source is refused with what to do, and nothing is removed."""
    said = compile_to(tree, target)
    assert "is, holds or is part of the source" in said
    assert said.endswith("name a folder of its own, such as build/compiled\n")


def test_a_link_to_the_source_is_the_source(tree):
    """It counts where a path leads."""
    (tree / "link").symlink_to("dispatcher", target_is_directory=True)
    assert "is, holds or is part of the source" in compile_to(tree, "link")


@pytest.mark.parametrize("target", ["notes", "notes/of.mine"])
def test_what_is_no_copy_is_not_removed(tree, target):
    """A folder with anything else in it, or a file, is refused."""
    assert "holds something else than an earlier copy" in compile_to(tree, target)


def test_a_new_folder_an_empty_one_and_an_earlier_copy_are_taken(tree):
    """These come as far as the compiler, whose absence ends it here."""
    (tree / "empty").mkdir()
    (tree / "build/compiled/dispatcher/_schemas").mkdir(parents=True)
    for target in ("new/folder", "empty", "build/compiled"):
        assert compile_to(tree, target).startswith("no C compiler is found")
