"""The ledger of a run as text."""

from collections.abc import Sequence

from tests.faults.soak.rig import Injury
from tests.faults.soak.verdict import Verdict


def report(injuries: Sequence[Injury], verdict: Verdict) -> str:
    """Write down what was done to the rig, how soon it was well again, and what became of everything."""
    lines = [f"{len(injuries)} faults; seconds from each one's undoing until all was well:"]
    lines += [f"  {each}" for each in injuries]
    return "\n".join([*lines, str(verdict)])
