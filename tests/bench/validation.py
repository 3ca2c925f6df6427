"""What looking an event up in the event catalogue costs: CPU time an event, beside decoding it.

    python -m tests.bench.validation

Each number is the lowest of several rounds, each over every sample of the shipped catalogue.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.decoding import CheckData, decode
from dispatcher.core.model import Origin
from dispatcher.operations.catalogue import load_catalogue

ROUNDS = 7
TURNS = 2_000
_ORIGIN = Origin("events", 0, 0, 1_768_473_000_000)


def cpu_us_each(step: Callable[[Any], object], over: list[Any], turns: int = TURNS) -> float:
    """Return the CPU time of one step in microseconds, the loop's own time taken off."""

    def lowest(timed: Callable[[Any], object]) -> float:
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            for _ in range(turns):
                for each in over:
                    timed(each)
            best = min(best, time.process_time() - started)
        return best

    return (lowest(step) - lowest(lambda _: None)) / turns / len(over) * 1e6


def measure(catalogue: Catalogue, turns: int = TURNS) -> dict[str, float]:
    """Return microseconds of CPU an event, by what was measured; more turns even out more of a machine's noise."""

    def each_of(step: Callable[[Any], object], over: list[Any]) -> float:
        return cpu_us_each(step, over, turns)

    samples = [(name, entry.sample) for name, entry in catalogue.types.items()]
    spoilt = [(name, {**sample, next(iter(sample)): 7}) for name, sample in samples]
    records = [
        json.dumps(
            {"id": "evt_1", "type": name, "workspace_id": "acme", "data": sample}, separators=(",", ":")
        ).encode()
        for name, sample in samples
    ]

    def count(event_type: str, data: Any) -> None:
        catalogue.fault(event_type, data)

    def decoding(check: CheckData | None) -> float:
        return each_of(lambda value: decode(value, (), _ORIGIN, None, check), records)

    alone, checked = decoding(None), decoding(count)
    return {
        "looked up, accepted": each_of(lambda each: catalogue.fault(*each), samples),
        "looked up, rejected": each_of(lambda each: catalogue.fault(*each), spoilt),
        "looked up, type unknown": each_of(lambda each: catalogue.fault("no.such", each[1]), samples),
        "rejection put in words": each_of(lambda each: catalogue.explain(*each), spoilt),
        "decoded": alone,
        "decoded and looked up": checked,
    }


def main() -> None:
    """Measure the shipped catalogue and print a line for each number."""
    started = time.process_time()
    catalogue = load_catalogue(None)
    print(f"{(time.process_time() - started) * 1e3:8.2f} ms   catalogue of {len(catalogue.types)} types loaded")
    for what, microseconds in measure(catalogue).items():
        print(f"{microseconds:8.2f} µs   {what}")


if __name__ == "__main__":
    main()
