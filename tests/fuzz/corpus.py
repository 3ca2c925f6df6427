"""Recorded inputs: one Python bytes literal a line, `#` for what it is about.

Each has been hand-made, or was found by a run and is kept so that it is tried in every run.
"""

import ast
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")


def seeds(target: str) -> list[bytes]:
    """Read the recorded inputs of a target."""
    lines = (FOLDER / f"{target}.txt").read_text("ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def record(target: str, data: bytes) -> None:
    """Keep an input that was found."""
    with (FOLDER / f"{target}.txt").open("a", encoding="ascii") as file:
        file.write(f"{data!r}\n")
