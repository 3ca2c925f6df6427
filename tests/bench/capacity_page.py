"""The measured figures and what follows from them, as they stand in `deploy/CAPACITY.md`.

    python -m tests.bench.capacity_page

writes that part of the page anew from `deploy/capacity.json`, after a change of the model or of its assumptions.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.bench.capacity_model import LOADS, Figures, Needs, model

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGE = DEPLOY / "CAPACITY.md"
STORED = DEPLOY / "capacity.json"
BEGIN = "<!-- capacity -->\n"
END = "<!-- /capacity -->"
COMMAND = "python -m tests.bench --phase capacity --write"


def render(figures: Figures) -> str:
    """Return the page's part between its marks: what was measured, and what each load needs."""
    found = [model(figures, load) for load in LOADS]
    measured = (
        f"`{COMMAND}` made this on {figures.measured_on}: {figures.deliveries:,} deliveries that succeeded at once and "
        f"{figures.retried:,} with one retry, on {figures.machine}, shared by worker, receiver, broker and mongod. One "
        f"worker made {figures.per_second:,.0f} deliveries/s of a backlog, with {figures.worker_mib:,.0f} MiB at most."
    )
    topics = f"{figures.source_bytes:,.0f} B | {figures.retry_bytes:,.0f} B"
    lines = [
        measured,
        "",
        "| measured | a delivery | a retry adds | nothing to do |",
        "| --- | --- | --- | --- |",
        _cpu("worker", figures.worker_us, figures.retry_worker_us, figures.idle_worker),
        _cpu("mongod", figures.mongod_us, figures.retry_mongod_us, figures.idle_mongod),
        _cpu("broker, publishing included", figures.broker_us, figures.retry_broker_us, figures.idle_broker),
        f"| delivery log, before compression | {figures.log_bytes:,.0f} B | {figures.retry_log_bytes:,.0f} B | |",
        f"| … on disk · its indexes | {figures.log_disk_bytes:,.0f} · {figures.index_bytes:,.0f} B | | |",
        f"| topics, with events of {figures.event_bytes:,.0f} B | {topics} | |",
        f"| a webhook in a worker's memory | {figures.webhook_bytes:,.0f} B | | |",
        "",
        f"| | {' | '.join(load.name for load in LOADS)} |",
        f"| --- |{' --- |' * len(LOADS)}",
        f"| at the peak | {' | '.join(f'{shown(load.peak_per_second)}/s' for load in LOADS)} |",
        f"| webhooks | {' | '.join(f'{load.webhooks:,}' for load in LOADS)} |",
        *(f"| {name} | {' | '.join(map(show, found))} |" for name, show in _ROWS),
    ]
    return "\n".join(lines) + "\n"


def _cpu(name: str, each: float, retry: float, idle: float) -> str:
    return f"| CPU of {name} | {each:,.0f} µs | {retry:,.0f} µs | {idle:.1%} of a core |"


def first(needs: Needs) -> str:
    """Say what is used up first, by how much."""
    name, share = needs.used[0]
    return f"{name}: {times(share)}" if share > 1 else f"nothing; {name}: {times(share)}"


def others(needs: Needs) -> str:
    """Say what else is too small."""
    return ", ".join(f"{name}: {times(share)}" for name, share in needs.used[1:] if share > 1) or "nothing"


def times(share: float) -> str:
    """Show how much of something is used: as a percentage, or how many times over."""
    if share > 1:
        return f"{shown(share)} times over"
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def cores(number: float) -> str:
    """Show cores: below a hundredth there is nothing to tell apart."""
    return "under 0.01" if number < 0.01 else shown(number)


def disk(gigabytes: float) -> str:
    """Show bytes of disk in a unit that fits."""
    for unit, size in (("PB", 1e6), ("TB", 1e3), ("GB", 1.0)):
        if gigabytes >= size:
            return f"{shown(gigabytes / size)} {unit}"
    return f"{shown(gigabytes * 1e3)} MB"


def shown(number: float) -> str:
    """Show a number with about two digits: more would be made up."""
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


_ROWS: tuple[tuple[str, Callable[[Needs], str]], ...] = (
    ("worker processes", lambda needs: f"{needs.workers:,}"),
    ("… cores of all, at the peak", lambda needs: cores(needs.worker_cores)),
    ("… memory of each", lambda needs: f"{needs.worker_mib:,.0f} MiB"),
    ("requests under way", lambda needs: shown(needs.in_flight)),
    ("partitions", lambda needs: f"{needs.partitions:,}"),
    ("MongoDB: cores", lambda needs: cores(needs.mongod_cores)),
    ("… outcomes to write", lambda needs: f"{shown(needs.writes_per_second)}/s"),
    ("… delivery log on disk", lambda needs: disk(needs.mongod_gb)),
    ("… of which indexes", lambda needs: disk(needs.index_gb)),
    ("Kafka: cores", lambda needs: cores(needs.broker_cores)),
    ("… source topics, each broker", lambda needs: disk(needs.source_gb)),
    ("… delay topics, each broker", lambda needs: disk(needs.own_gb)),
    ("**breaks first**", first),
    ("**then**", others),
)


def read_figures(path: Path = STORED) -> Figures:
    """Read the figures that the page was made of."""
    return Figures(**json.loads(path.read_text()))


def write_page(figures: Figures, page: Path = PAGE, stored: Path = STORED) -> None:
    """Keep the figures, and put what follows from them between the marks of the page.

    Raises:
        ValueError: The page has no such marks.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no part between {BEGIN.strip()} and {END}")
    page.write_text(f"{before}{begin}{render(figures)}{end}{after}")
    stored.write_text(json.dumps(asdict(figures), indent=2) + "\n")


if __name__ == "__main__":
    write_page(read_figures())
