"""The figures of a run as one page of HTML with its plots, and as a row for bench/LONG_RUNS.md.

Used by __main__.py. The page holds all that it needs: no script, nothing that is fetched.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from bench.fleet.samples import Sample, rates

WIDTH: Final = 900
HEIGHT: Final = 200
LEFT: Final = 60
_COLOURS: Final = ("#1f77b4", "#999999", "#d62728")
_STYLE: Final = "font: 14px sans-serif; max-width: 1000px; margin: 2em auto"
PLOTS: Final = (
    ("Calls a second that the engines answered, and their bound", ("rate", "bound")),
    ("Milliseconds of PostgreSQL for one claim's look at a queue", ("claim_ms",)),
    ("Milliseconds of PostgreSQL for one chunk, claim to commit", ("database_ms",)),
    ("Engines", ("engines",)),
    (
        "MB of the database with its log, and of the API processes and workers",
        ("disk_mb", "memory_mb"),
    ),
)


def page(
    title: str,
    facts: Mapping[str, str],
    samples: Sequence[Sample],
    marks: Sequence[tuple[float, str]],
) -> str:
    """`marks`: seconds and what happened then."""
    span_s = max(10.0, (samples[-1].at_s - samples[0].at_s) / 150)
    stretches = rates(samples, span_s)
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    drawn = "".join(
        f"<h2>{escape(words)}</h2>{_plot(stretches, names, marks)}" for words, names in PLOTS
    )
    head = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>"
    return f"{head}<body style='{_STYLE}'><h1>{escape(title)}</h1><table>{rows}</table>{drawn}"


def _plot(
    stretches: Sequence[tuple[float, Mapping[str, float]]],
    names: Sequence[str],
    marks: Sequence[tuple[float, str]],
) -> str:
    end_s = max((at_s for at_s, _ in stretches), default=1.0)
    values = [each[name] for _, each in stretches for name in names if name in each]
    top = 1.1 * max(values, default=1.0) or 1.0

    def x(at_s: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * at_s / end_s, 1)

    def y(value: float) -> float:
        return round(HEIGHT - HEIGHT * value / top, 1)

    parts = [
        f"<line x1='{LEFT}' x2='{WIDTH}' y1='{y(v)}' y2='{y(v)}' stroke='#ddd'/>"
        f"<text x='0' y='{y(v) + 12}'>{v:.3g}</text>"
        for v in (0.0, top / 2, top)
    ]
    parts += [
        f"<line x1='{x(at_s)}' x2='{x(at_s)}' y1='0' y2='{HEIGHT}' stroke='#d62728'"
        f" stroke-dasharray='4'><title>{escape(words)}</title></line>"
        f"<text x='{x(at_s) + 3}' y='12' fill='#d62728'>{escape(words)}</text>"
        for at_s, words in marks
        if at_s <= end_s
    ]
    for colour, name in zip(_COLOURS, names, strict=False):
        points = " ".join(f"{x(at)},{y(each[name])}" for at, each in stretches if name in each)
        parts.append(f"<polyline points='{points}' fill='none' stroke='{colour}'/>")
    parts += [
        f"<text x='{x(share * end_s) - 40}' y='{HEIGHT + 16}'>{share * end_s:,.0f} s</text>"
        for share in (0.25, 0.5, 0.75, 1.0)
    ]
    size = f"width='{WIDTH}' height='{HEIGHT + 24}' viewBox='0 -4 {WIDTH} {HEIGHT + 28}'"
    return f"<svg {size} style='font: 11px sans-serif'>{''.join(parts)}</svg>"
