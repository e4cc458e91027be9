"""One chart over time as SVG: curves, bands of time behind them, marks at instants.

Called by the plots of this folder. Places across are shares of the width, so that a chart fits any
screen without a script while its letters keep their size. Invariants: no style and no script stands
in a chart (classes name the colours, console.css has them for dark and light), and every word in it
is escaped.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec
from markupsafe import Markup

from lowtide.api.plots.scales import TimeScale, short_number, value_ticks

Role = Literal["done", "failed", "tokens", "planned", "median", "slow", "window"]
"""What a curve stands for: its class is `plot-` and this."""

_ACROSS: Final = 1000  # units of the curves' own coordinates
_DOWN: Final = 100
HEIGHT: Final = 110  # pixels of the curves


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """`points`: instants and values, in order; a value of None is a gap. `is_area`: what is below
    it is filled. `holds`: each value holds until the next instant, as that of a bucket does."""

    role: Role
    points: Sequence[tuple[datetime, float | None]]
    is_area: bool = False
    holds: bool = True


class Area(msgspec.Struct, frozen=True):
    """A filled area with the corners `points`; its class is `plot-` and `role`."""

    role: Role
    points: Sequence[tuple[datetime, float]]


class Band(msgspec.Struct, frozen=True):
    """A stretch of time in which something held: its class is `plot-` and `role`."""

    since: datetime
    until: datetime
    role: Literal["paused", "gave-way", "foreseen"]
    words: str


class Mark(msgspec.Struct, frozen=True):
    """An instant with a name."""

    at: datetime
    role: Literal["now", "deadline", "event"]
    words: str


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """`words` say in a sentence what is seen, for who does not see it. `top`: the largest value
    that has to fit, if that is more than the curves have. `unit` stands behind the uppermost value.
    """

    scale: TimeScale
    curves: Sequence[Curve]
    words: str
    bands: Sequence[Band] = ()
    areas: Sequence[Area] = ()
    marks: Sequence[Mark] = ()
    top: float = 0.0
    unit: str = ""
    shows_times: bool = True


def drawn(chart: Chart) -> Markup:
    """The chart as one `<svg>` element, and the instants below it."""
    values = [value for curve in chart.curves for _, value in curve.points if value is not None]
    rows = value_ticks(max([chart.top, *values]))
    top = rows[-1]
    inside = Markup("").join(
        (
            *(_band(chart.scale, each) for each in chart.bands),
            *(_area(chart.scale, each, top) for each in chart.areas),
            *(_curve(chart.scale, each, top) for each in chart.curves),
        )
    )
    space = (
        '<svg class="plot-space" width="100%" height="{}" viewBox="0 0 {} {}"'
        ' preserveAspectRatio="none">{}</svg>'
    )
    parts = [
        Markup(space).format(HEIGHT, _ACROSS, _DOWN, inside),
        *(_mark(chart.scale, each) for each in chart.marks),
        # Last, so that no line strikes through the values.
        *(_row(value, top, chart.unit if value == top else "") for value in rows),
    ]
    if chart.shows_times:
        parts += [_instant(each.share, each.label, each.at) for each in chart.scale.ticks()]
    kind = "plot" if chart.shows_times else "plot plot-bare"
    figure = Markup('<svg class="{}" role="img" aria-label="{}">{}</svg>')
    return figure.format(kind, chart.words, Markup("").join(parts))


def _curve(scale: TimeScale, curve: Curve, top: float) -> Markup:
    """One path for each stretch without a gap, in one element."""
    line, area = [], []
    for stretch in _stretches(curve.points):
        steps: list[str] = []
        for number, (at, value) in enumerate(stretch):
            x, y = _x(scale, at), _y(value, top)
            if number == 0:
                steps.append(f"M{x} {y}")
            else:
                steps.append(f"H{x}V{y}" if curve.holds else f"L{x} {y}")
        line.append("".join(steps))
        first, last = _x(scale, stretch[0][0]), _x(scale, stretch[-1][0])
        area.append(f"{''.join(steps)}L{last} {_DOWN}L{first} {_DOWN}Z")
    fill = Markup('<path class="plot-area plot-{}" d="{}"/>') if curve.is_area else Markup("")
    stroke = Markup('<path class="plot-line plot-{}" d="{}"/>')
    return fill.format(curve.role, "".join(area)) + stroke.format(curve.role, "".join(line))


def _stretches(
    points: Iterable[tuple[datetime, float | None]],
) -> Iterable[list[tuple[datetime, float]]]:
    stretch: list[tuple[datetime, float]] = []
    for at, value in points:
        if value is not None:
            stretch.append((at, value))
        elif stretch:
            yield [*stretch, (at, stretch[-1][1])]
            stretch = []
    if stretch:
        yield stretch


def _area(scale: TimeScale, area: Area, top: float) -> Markup:
    corners = "L".join(f"{_x(scale, at)} {_y(value, top)}" for at, value in area.points)
    return Markup('<path class="plot-area plot-{}" d="M{}Z"/>').format(area.role, corners)


def _band(scale: TimeScale, band: Band) -> Markup:
    x, end = _x(scale, band.since), _x(scale, band.until)
    shape = '<rect class="plot-band plot-{}" x="{}" width="{}" height="{}"><title>{}</title></rect>'
    return Markup(shape).format(band.role, x, round(max(2.0, end - x), 1), _DOWN, band.words)


def _mark(scale: TimeScale, mark: Mark) -> Markup:
    x = _percent(scale.share(mark.at))
    shape = (
        '<line class="plot-mark plot-{}" x1="{}" x2="{}" y1="0" y2="{}"><title>{}</title></line>'
    )
    return Markup(shape).format(mark.role, x, x, HEIGHT, mark.words)


def _row(value: float, top: float, unit: str) -> Markup:
    y = round(HEIGHT * (1 - value / top) + 14, 1)  # letters stand below their line
    line_y = round(y - 13.5, 1)
    shape = (
        '<line class="plot-row" x1="0" x2="100%" y1="{}" y2="{}"/>'
        '<text class="plot-value" x="2" y="{}">{}</text>'
    )
    words = f"{short_number(value)} {unit}".strip()
    return Markup(shape).format(line_y, line_y, y, words)


def _instant(share: float, label: str, at: datetime | None) -> Markup:
    shape = '<text class="plot-instant" x="{}" y="{}" data-at="{}" data-shown="{}">{}</text>'
    shown = "day" if ":" not in label else "weekday" if " " in label else "time"
    shown = "second" if label.count(":") == 2 else shown
    iso = at.isoformat() if at is not None else ""
    return Markup(shape).format(_percent(share), HEIGHT + 16, iso, shown, label)


def _x(scale: TimeScale, at: datetime) -> float:
    return round(_ACROSS * scale.share(at), 1)


def _y(value: float, top: float) -> float:
    return round(_DOWN * (1 - min(1.0, max(0.0, value / top))), 1)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
