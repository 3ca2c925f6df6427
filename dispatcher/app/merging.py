"""Merges the workers' Prometheus pages into one: each sample gets a `worker` label.

Counters never go back: what a dead worker had counted, as far as it was last seen, is added to what its
replacement counts. Gauges of a worker that isn't there are left out.

Source: Prometheus text exposition format 0.0.4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_ADDED_UP = frozenset({"counter", "histogram", "summary"})
_SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class WorkerPage:
    """What one worker answered.

    Attributes:
        number: The worker's number.
        incarnation: Which process of that number this is; higher ones replace lower ones.
        text: Its page; None where it gave none (dead, starting, or too slow).
    """

    number: int
    incarnation: int
    text: str | None


@dataclass(slots=True)
class Family:
    """One metric: its HELP and TYPE, and its samples by name and labels, in the page's order."""

    help: str = ""
    type: str = "untyped"
    samples: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    """What is known of one worker number: the page of its newest process, and the sums of those before."""

    incarnation: int = 0
    families: dict[str, Family] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)

    def fold(self) -> None:
        """The process whose page this is has ended: what it counted is kept, its gauges are gone."""
        for key, value in _counted(self.families):
            self.before[key] = self.before.get(key, 0.0) + value
        for family in self.families.values():
            if family.type in _ADDED_UP:
                family.samples = {key: "0" for key in family.samples if not _is_quantile(key)}
            else:
                family.samples = {}


class PageMerger:
    """Merges pages, and remembers what dead workers had counted."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def merge(self, pages: Iterable[WorkerPage], own: str = "") -> str:
        """Merge one round of pages.

        Args:
            pages: One for each worker number, taken after those of the round before.
            own: The supervising process's page; its samples get no label.

        Returns:
            One page, HELP and TYPE once for each metric.
        """
        merged: dict[str, tuple[Family, list[str]]] = {}
        for name, family in parse_page(own).items():
            lines = [f"{key} {value}" for key, value in family.samples.items()]
            merged[name] = (family, lines)
        for page in sorted(pages, key=lambda page: page.number):
            seen = self._take(page)
            for name, family in seen.families.items():
                is_added_up = family.type in _ADDED_UP
                if page.text is None and not is_added_up:
                    continue
                _, lines = merged.setdefault(name, (family, []))
                before = seen.before if is_added_up else {}
                lines.extend(_labelled(family.samples, page.number, before))
        return "".join(_written(name, family, lines) for name, (family, lines) in merged.items() if lines)

    def _take(self, page: WorkerPage) -> _Seen:
        seen = self._seen.setdefault(page.number, _Seen())
        if page.incarnation > seen.incarnation:
            seen.fold()
            seen.incarnation = page.incarnation
        if page.text is not None and page.incarnation == seen.incarnation:
            old, seen.families = seen.families, parse_page(page.text)
            _keep_missing(seen.families, old, seen.before)
        return seen


def parse_page(text: str) -> dict[str, Family]:
    """Take a page apart, line by line; samples without timestamps, as the Prometheus client writes them.

    Returns:
        Families by metric name, in the page's order; a sample's key is its name with its labels.
    """
    families: dict[str, Family] = {}
    current = ""
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, kind, current, *rest = line.split(" ", 3)
            family = families.setdefault(current, Family())
            if kind == "HELP":
                family.help = rest[0] if rest else ""
            else:
                family.type = rest[0] if rest else "untyped"
        elif line and not line.startswith("#"):
            key, _, value = line.rpartition(" ")
            name = key.partition("{")[0]
            if name != current and not (name.startswith(current) and name[len(current) :] in _SUFFIXES):
                current = name
            families.setdefault(current, Family()).samples[key] = value
    return families


def _counted(families: Mapping[str, Family]) -> Iterable[tuple[str, float]]:
    for family in families.values():
        if family.type in _ADDED_UP:
            for key, value in family.samples.items():
                if not _is_quantile(key):
                    yield key, _number(value)


def _keep_missing(families: dict[str, Family], old: Mapping[str, Family], before: Mapping[str, float]) -> None:
    """Keep counters that an earlier process had counted and this one has not touched yet."""
    for name, family in old.items():
        if family.type not in _ADDED_UP:
            continue
        kept = families.setdefault(name, Family(family.help, family.type))
        for key in family.samples:
            if key in before:
                kept.samples.setdefault(key, "0")


def _is_quantile(key: str) -> bool:
    return "quantile=" in key.partition("{")[2]


def _labelled(samples: Mapping[str, str], number: int, before: Mapping[str, float]) -> Iterable[str]:
    for key, value in samples.items():
        name, brace, labels = key.partition("{")
        label = f'{name}{{worker="{number}"' + (f",{labels}" if brace and labels != "}" else "}")
        yield f"{label} {_text(_number(value) + before[key]) if key in before else value}"


def _written(name: str, family: Family, lines: Sequence[str]) -> str:
    head = f"# HELP {name} {family.help}\n# TYPE {name} {family.type}\n"
    return head + "".join(f"{line}\n" for line in lines)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _text(value: float) -> str:
    return repr(value).replace("inf", "+Inf").replace("nan", "NaN")
