"""Which faults a run injects: a fixed list for the short one, all of them in a drawn order for the long one."""

import random
from collections.abc import Iterator, Sequence

from tests.faults.soak.fault import Fault, FaultMaker
from tests.faults.soak.faults import EndpointsHang, ServiceFrozen, ServiceRestarted, WorkerEnded, WorkersComeAndGo

SHORT_RUN: tuple[FaultMaker, ...] = (
    lambda chance: WorkerEnded(chance, told=False),
    lambda chance: WorkerEnded(chance, told=True),
    lambda _: ServiceFrozen("mongo", 3),
    lambda _: ServiceRestarted("kafka"),
    lambda chance: WorkersComeAndGo(chance, 12),
    lambda _: EndpointsHang(9),
    lambda chance: WorkerEnded(chance, told=False),
    lambda _: ServiceFrozen("kafka", 9),
)
"""In this order."""

LONG_RUN: tuple[FaultMaker, ...] = (
    lambda chance: WorkerEnded(chance, told=False),
    lambda chance: WorkerEnded(chance, told=False),
    lambda chance: WorkerEnded(chance, told=True),
    lambda _: ServiceFrozen("mongo", 12),
    lambda _: ServiceRestarted("mongo"),
    lambda _: ServiceRestarted("kafka"),
    lambda _: ServiceRestarted("kafka", killed=True),
    lambda chance: ServiceFrozen("kafka", round(chance.uniform(7, 15))),
    lambda chance: WorkersComeAndGo(chance, 60),
    lambda _: EndpointsHang(9),
)
"""Each once a round, in a new order each time."""


def short_run(chance: random.Random) -> Iterator[Fault]:
    """Give the faults of the short run."""
    for make in SHORT_RUN:
        yield make(chance)


def long_run(chance: random.Random, further: Sequence[FaultMaker] = ()) -> Iterator[Sequence[Fault]]:
    """Give the faults of the long run and further ones, round after round without an end."""
    makers = (*LONG_RUN, *further)
    while True:
        yield [make(chance) for make in chance.sample(makers, len(makers))]
