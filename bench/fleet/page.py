"""The figures of a run as one page of HTML with its plots, drawn as those of the console are.

Used by __main__.py. The page holds all that it needs: no script, nothing that is fetched.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files
from typing import Final

from bench.fleet.samples import Sample, rates
from lowtide.api.plots.chart import Band, Chart, Curve, Role, drawn
from lowtide.api.plots.scales import TimeScale, time_scale

STRETCHES: Final = 150
"""Points of a curve, at most."""
STRETCH_S: Final = 10.0
PLOTS: Final[Sequence[tuple[str, str, Mapping[str, Role]]]] = (
    ("Calls that the engines answered, and their bound", "/s", {"rate": "tokens", "bound": "slow"}),
    ("A claim's look at a queue, time of PostgreSQL", "ms", {"claim_ms": "median"}),
    ("A chunk from claim to commit, time of PostgreSQL", "ms", {"database_ms": "median"}),
    ("Engines that were listed", "", {"engines": "window"}),
    ("The database with its log", "MB", {"disk_mb": "median"}),
    ("Memory of all API processes and workers", "MB", {"memory_mb": "median"}),
)
_BEGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Instants of a run are told from its begin, as a clock that starts at 00:00."""


def page(
    title: str,
    facts: Mapping[str, str],
    samples: Sequence[Sample],
    outages: Sequence[tuple[float, float, str]],
) -> str:
    """`outages`: when each began and ended, in seconds, and what was away."""
    span_s = max(STRETCH_S, (samples[-1].at_s - samples[0].at_s) / STRETCHES)
    stretches = rates(samples, span_s)
    scale = time_scale(_BEGIN, _at(samples[-1].at_s))
    bands = [Band(_at(since_s), _at(until_s), "paused", what) for since_s, until_s, what in outages]
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()
    )
    css = files("lowtide.api.console").joinpath("static/console.css").read_text("utf-8")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{escape(title)}</title><style>{css}</style><main><h1>{escape(title)}</h1>"
        f"<section class=panel><dl>{rows}</dl></section>"
        f"<section class=panel><div class=plots>{''.join(_figures(stretches, scale, bands))}</div>"
        "</section></main></html>"
    )


def _figures(
    stretches: Sequence[tuple[float, Mapping[str, float]]],
    scale: TimeScale,
    bands: Sequence[Band],
) -> Iterator[str]:
    for words, unit, names in PLOTS:
        curves = [
            Curve(
                role=role,
                points=[(_at(at_s), values.get(name)) for at_s, values in stretches],
                is_area=role == "tokens",
                holds=False,
            )
            for name, role in names.items()
        ]
        chart = Chart(scale=scale, curves=curves, words=words, bands=bands, unit=unit)
        yield f"<figure><figcaption>{escape(words)}</figcaption>{drawn(chart)}</figure>"


def _at(seconds: float) -> datetime:
    return _BEGIN + timedelta(seconds=seconds)
