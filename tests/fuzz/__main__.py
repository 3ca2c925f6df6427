# ruff: noqa: T201 - a run prints what it counted
"""`make fuzz`: strangers' bytes against everything that reads them, for so many minutes.

    python -m tests.fuzz [--minutes 1] [--target answers] [--seed 7]

What is found is added to the corpus, where every later run and the tests try it first, and ends the run.
"""

import argparse
import sys
import time

from tests.fuzz.corpus import record
from tests.fuzz.running import FoundError, run
from tests.fuzz.targets import TARGETS

ROUND = 2_000
RECORDED_BYTES = 10_000
"""What is longer is found again from its seed instead."""


def main(targets: list[str], minutes: float, seed: int) -> int:
    """Go round the targets until the time is over; returns the exit code."""
    ends_at, totals = time.monotonic() + 60 * minutes, dict.fromkeys(targets, 0)
    seen: dict[str, dict[str, int]] = {target: {} for target in targets}
    peaks, steps = dict.fromkeys(targets, 0), dict.fromkeys(targets, 0)
    print(f"seed {seed}")
    while True:
        for target in targets:
            try:
                found = run(target, ROUND, seed)
            except FoundError as error:
                print(f"{error}\n  {type(error.__cause__).__name__}: {error.__cause__}", file=sys.stderr)
                if len(error.data) <= RECORDED_BYTES:
                    record(target, error.data)
                    print(f"  added to tests/fuzz/corpus/{target}.txt", file=sys.stderr)
                print(f"  again: python -m tests.fuzz --target {target} --seed {seed} --minutes 0", file=sys.stderr)
                return 1
            totals[target] += found.executions
            for outcome, count in found.outcomes.items():
                seen[target][outcome] = seen[target].get(outcome, 0) + count
            peaks[target] = max(peaks[target], found.peak_bytes)
            steps[target] = max(steps[target], found.most_steps)
        seed += 1
        if time.monotonic() >= ends_at:
            break
    for target in targets:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(seen[target].items()))
        print(
            f"{target:<12} {totals[target]:>9,} inputs; at most {steps[target]:,} calls, {peaks[target]:,} bytes each"
        )
        print(f"             {outcomes}")
    print(f"{sum(totals.values()):,} inputs, no fault")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="another one finds other inputs")
    parser.add_argument("--target", action="append", choices=tuple(TARGETS))
    options = parser.parse_args()
    sys.exit(main(options.target or list(TARGETS), options.minutes, options.seed))
