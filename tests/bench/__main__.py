"""`make bench`: what one worker process makes of its work, on real services of its own.

    python -m tests.bench [--phase throughput] [--events 300000] [--profile FILE]

Worker, receiver, Kafka, MongoDB and the publisher share this machine's cores, so the figures are for this machine; what
can be compared are ratios within one run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import uvloop

from dispatcher.operations.catalogue import load_catalogue
from tests.bench.capacity import DELIVERIES as CAPACITY
from tests.bench.capacity import show_capacity
from tests.bench.dead_letters import show_dead_letters
from tests.bench.growth import show_growth
from tests.bench.hostile import DELIVERIES, show_hostile
from tests.bench.isolation import show_isolation, show_waiting
from tests.bench.live_latency import show_replay
from tests.bench.neighbours import show_neighbours
from tests.bench.retries import show_retries
from tests.bench.rig import Rig, open_rig
from tests.bench.subscriptions import show_subscriptions
from tests.bench.throughput import show_latency, show_throughput
from tests.bench.validation import measure

QUICK = ("validation", "throughput", "latency")
PHASES = (
    *QUICK, "waiting", "isolation", "neighbours", "retries", "growth", "subscriptions", "replay", "hostile",
    "capacity", "dead-letters",
)  # fmt: skip


async def main(asked: argparse.Namespace, phases: Sequence[str]) -> None:
    """Run the phases, in the order of `PHASES`."""
    if "validation" in phases:
        show_validation()
    if set(phases) - {"validation", "dead-letters"}:
        async with open_rig(print, asked.compiled and asked.compiled.resolve()) as rig:
            for phase in PHASES:
                if phase in phases:
                    await show(rig, phase, asked)
    if "dead-letters" in phases:
        await show_dead_letters()


async def show(rig: Rig, phase: str, asked: argparse.Namespace) -> None:
    """Run one phase and print what it found."""
    found = {
        "throughput": lambda: show_throughput(rig, asked.events, asked.profile),
        "latency": lambda: show_latency(rig),
        "waiting": lambda: show_waiting(rig, asked.events),
        "isolation": lambda: show_isolation(rig, asked.events),
        "neighbours": lambda: show_neighbours(rig, asked.events),
        "retries": lambda: show_retries(rig),
        "growth": lambda: show_growth(rig),
        "subscriptions": lambda: show_subscriptions(rig, asked.events),
        "replay": lambda: show_replay(rig),
        "hostile": lambda: show_hostile(rig, asked.hostile),
        "capacity": lambda: show_capacity(rig, asked.deliveries, write=asked.write),
    }
    if phase in found:
        await found[phase]()


def show_validation() -> None:
    """Print what decoding an event costs, and what looking it up in the event catalogue adds."""
    cost = measure(load_catalogue(None), turns=500)
    alone, checked = cost["decoded"], cost["decoded and looked up"]
    print(f"catalogue            {checked - alone:.2f} µs of CPU an event, beside {alone:.2f} µs to decode it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="of a backlog")
    parser.add_argument("--hostile", type=int, default=DELIVERIES, help="deliveries to hostile endpoints")
    parser.add_argument("--deliveries", type=int, default=CAPACITY, help="of the capacity phase")
    parser.add_argument(
        "--write", action="store_true", help="put what the capacity phase finds into deploy/CAPACITY.md"
    )
    parser.add_argument("--phase", action="append", choices=PHASES, help="only this phase; may be given several times")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}: two minutes")
    parser.add_argument("--profile", help="write a py-spy profile of the worker (raw stacks) to this file")
    parser.add_argument("--compiled", type=Path, help="measure the compiled copy in this folder (make compile)")
    arguments = parser.parse_args()
    uvloop.run(main(arguments, arguments.phase or (QUICK if arguments.quick else PHASES)))
