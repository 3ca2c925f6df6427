"""Runs a target over recorded and made-up inputs, and counts."""

import collections
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Any

from tests.fuzz.corpus import seeds
from tests.fuzz.mutation import cuts_of, mutated
from tests.fuzz.targets import ANSWER_MEMORY_BYTES, MEMORY, TARGETS, bounded_memory

SHOWN_BYTES = 400
STEPS = 3_000
"""Calls of Python functions that any input may cost."""
STEPS_A_PIECE = 60
"""Further ones for each piece that it comes in, and each line in it."""


@dataclass
class Run:
    """What a run of a target found.

    Attributes:
        executions: Inputs tried.
        outcomes: How many of them ended in which outcome.
        most_steps: The most Python calls that one of them took.
        peak_bytes: The most memory that one of them took.
    """

    target: str
    executions: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    most_steps: int = 0
    peak_bytes: int = 0


class FoundError(AssertionError):
    """An input broke what must hold; the message has its beginning."""

    def __init__(self, target: str, data: bytes, cuts: list[int]) -> None:
        shown = f"{data[:SHOWN_BYTES]!r}{'…' if len(data) > SHOWN_BYTES else ''}"
        super().__init__(f"{target} fails for {shown} of {len(data)} bytes, cut at {cuts[:50]}")
        self.data = data


def run(target: str, executions: int, seed: int) -> Run:
    """Try every recorded input whole and cut, then made-up ones, the same from the same seed.

    Raises:
        FoundError: One broke what must hold, or took more memory or more steps than any may.
    """
    found, chance, recorded = Run(target), Random(f"{target} {seed}"), seeds(target)
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    MEMORY.peak_bytes = 0
    try:
        for data in recorded:
            for cuts in ([], list(range(min(len(data), 500)))):
                _try(found, data, cuts)
        for _ in range(executions):
            data = mutated(recorded, chance)
            _try(found, data, cuts_of(len(data), chance))
    finally:
        if not tracing:
            tracemalloc.stop()
    found.peak_bytes = MEMORY.peak_bytes
    return found


def _try(found: Run, data: bytes, cuts: list[int]) -> None:
    try:
        # Reading an answer has its own bound, whatever its length; what is decoded whole may take a multiple of it.
        most = 2 * ANSWER_MEMORY_BYTES + 128 * len(data)
        with _counted_steps() as steps, bounded_memory(most) if found.target != "answers" else nullcontext():
            outcome = TARGETS[found.target](data, cuts)
        allowed = STEPS + STEPS_A_PIECE * (len(cuts) + data.count(b"\n") + len(data) // 4096)
        assert steps[0] <= allowed, f"{steps[0]} calls, over {allowed}"
    except Exception as error:
        raise FoundError(found.target, data, cuts) from error
    found.executions += 1
    found.outcomes[outcome] += 1
    found.most_steps = max(found.most_steps, steps[0])


@contextmanager
def _counted_steps() -> Iterator[list[int]]:
    """Count the calls of Python functions: what stands for time, as a clock on a busy machine can't."""
    steps = [0]

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            steps[0] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield steps
    finally:
        sys.setprofile(before)
