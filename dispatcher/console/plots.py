"""Plots as SVG, drawn by the server: colours come from the style sheet, so that both its themes fit.

Times are written in UTC; the script shows those with `data-at` in the reader's zone.
"""

from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from dispatcher.console.words import duration, number
from dispatcher.operations.overview import Bucket, Overview
from dispatcher.operations.times import rfc3339

WIDTH, HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 10, 24
_INNER_WIDTH = WIDTH - _LEFT - _RIGHT
_INNER_HEIGHT = HEIGHT - _TOP - _BOTTOM
_LABELS = 5
_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
_STEPS = (1, 2, 3, 4, 6, 8, 10)

_STACK = (("good", "delivered"), ("wait", "under_way"), ("bad", "failed"), ("idle", "skipped"))


def rate(overview: Overview) -> Markup:
    """Draw deliveries per minute as bars, stacked by what became of them."""
    minutes = overview.bucket_ms / _MINUTE_MS
    top = _round_up(max((bucket.total / minutes for bucket in overview.buckets), default=0))
    step = _INNER_WIDTH / len(overview.buckets)
    bars = []
    for place, bucket in enumerate(overview.buckets):
        if not bucket.total:
            continue
        y = float(_TOP + _INNER_HEIGHT)
        parts = []
        for tone, name in _STACK:
            height = getattr(bucket, name) / minutes / top * _INNER_HEIGHT
            if height:
                y -= height
                parts.append(_rect(tone, _LEFT + place * step + 0.5, y, max(step - 1, 0.5), height))
        title = Markup('<title data-at="{}">{}</title>').format(bucket.at_ms, _told(bucket))
        bars.append(Markup("<g>{}{}</g>").format(title, Markup("").join(parts)))
    return _plot("Deliveries per minute", _axes(overview, top, _plain), bars)


def success(overview: Overview) -> Markup:
    """Draw the part of those that reached an end that was delivered, in percent."""
    points = []
    for bucket in overview.buckets:
        ended = bucket.delivered + bucket.failed
        points.append(100 * bucket.delivered / ended if ended else None)
    return _plot("Success rate in percent", _axes(overview, 100, _percent), _line(1, points, 100))


def latency(overview: Overview) -> Markup:
    """Draw the percentiles of how long attempts took."""
    measured = [bucket.latency for bucket in overview.buckets]
    top = _round_up(max((each.p99 for each in measured if each is not None), default=0))
    lines: list[Markup] = []
    for place, name in enumerate(("p50", "p95", "p99"), start=1):
        lines += _line(place, [None if each is None else getattr(each, name) for each in measured], top)
    return _plot("Latency of attempts: median, 95th and 99th percentile", _axes(overview, top, _milliseconds), lines)


def backlog(overview: Overview) -> Markup:
    """Draw how many deliveries wait in each tier."""
    rows = [(f"tier {each.tier}", each.waiting) for each in overview.backlog]
    rows = [("now", overview.at_once), *rows]
    top = max(1, *(count for _, count in rows))
    row_height = 26
    height = row_height * len(rows) + 8
    width = WIDTH - 96 - 60
    drawn = []
    for place, (name, count) in enumerate(rows):
        y = 6 + place * row_height
        label = Markup('<text x="88" y="{}" text-anchor="end">{}</text>').format(y + 14, name)
        bar = _rect("wait" if count else "idle", 96, y + 3, max(count / top * width, 1.5), 14)
        told = Markup('<text x="{}" y="{}">{}</text>').format(_short(102 + count / top * width), y + 14, number(count))
        drawn.append(label + bar + told)
    return _plot("Deliveries that wait, by tier", [], drawn, height=height)


def _plot(title: str, axes: Iterable[Markup], drawn: Iterable[Markup], *, height: int = HEIGHT) -> Markup:
    inside = Markup("").join((*axes, *drawn))
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, title, inside
    )


def _axes(overview: Overview, top: float, written: Callable[[float], str]) -> list[Markup]:
    drawn = []
    for part in (0, 0.5, 1):
        y = _TOP + _INNER_HEIGHT * (1 - part)
        kind = "grid-line" if part else "axis"
        drawn.append(
            Markup(
                '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>'
            ).format(kind, _LEFT, WIDTH - _RIGHT, _short(y), _short(y), _LEFT - 6, _short(y + 4), written(top * part))
        )
    buckets = overview.buckets
    daily = overview.bucket_ms * len(buckets) > _DAY_MS
    for label in range(_LABELS):
        place = label * (len(buckets) - 1) // (_LABELS - 1)
        at_ms = buckets[place].at_ms
        x = _LEFT + (place + 0.5) * _INNER_WIDTH / len(buckets)
        anchor = "end" if label == _LABELS - 1 else "start" if label == 0 else "middle"
        text = rfc3339(at_ms)[5:10] if daily else rfc3339(at_ms)[11:16]
        kind = "day" if daily else "minute"
        drawn.append(
            Markup(
                '<text x="{}" y="{}" text-anchor="{}"><title>{}</title>'
                '<tspan data-at="{}" data-as="{}">{}</tspan></text>'
            ).format(_short(x), HEIGHT - 6, anchor, _utc(at_ms), at_ms, kind, text)
        )
    return drawn


def _line(place: int, points: Sequence[float | None], top: float) -> list[Markup]:
    """Draw a line through points, broken where one is missing; one that stands alone becomes a dot."""
    step = _INNER_WIDTH / len(points)
    drawn = []
    run: list[tuple[float, float]] = []
    for position, value in enumerate((*points, None)):
        if value is not None:
            run.append((_LEFT + (position + 0.5) * step, _TOP + _INNER_HEIGHT * (1 - min(1, value / top))))
            continue
        if len(run) == 1:
            ((x, y),) = run
            drawn.append(Markup('<circle class="d-{}" cx="{}" cy="{}" r="2.2"/>').format(place, _short(x), _short(y)))
        elif run:
            path = " ".join(f"{_short(x)},{_short(y)}" for x, y in run)
            drawn.append(Markup('<polyline class="l-{}" points="{}"/>').format(place, path))
        run = []
    return drawn


def _rect(tone: str, x: float, y: float, width: float, height: float) -> Markup:
    shape = (_short(x), _short(y), _short(width), _short(height))
    return Markup('<rect class="p-{}" x="{}" y="{}" width="{}" height="{}"/>').format(tone, *shape)


def _told(bucket: Bucket) -> str:
    parts = [f"{getattr(bucket, name)} {name.replace('_', ' ')}" for _, name in _STACK if getattr(bucket, name)]
    return f"{_utc(bucket.at_ms)}: {', '.join(parts)}"


def _utc(at_ms: int) -> str:
    return f"{rfc3339(at_ms)[:16].replace('T', ' ')} UTC"


def _round_up(value: float) -> float:
    """Return the next number that reads well on an axis, at least 1."""
    size = 1.0
    while size * 10 < value:
        size *= 10
    return next((size * step for step in _STEPS if size * step >= value), size * 10)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _plain(value: float) -> str:
    return number(value)


def _percent(value: float) -> str:
    return f"{value:.0f} %"


def _milliseconds(value: float) -> str:
    return duration(value) if value else "0"
