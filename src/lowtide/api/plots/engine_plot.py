"""The plots of one engine: how long live calls waited, what batches got, and how many ran at once.

Called by the console's pages of engines. It draws `GET /v1/admin/engines/{name}/history`; marks
show when batch calls gave live ones the room.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import dropwhile, groupby
from typing import Final

import msgspec
from markupsafe import Markup

from lowtide.api.objects.history import EngineSpanObject
from lowtide.api.plots.chart import Band, Chart, Curve, Role, drawn
from lowtide.api.plots.scales import TimeScale, short_number, time_scale

_BEGUN_S: Final = 15  # a shorter stretch says nothing yet
_SPANS_MIN: Final = 20  # ten minutes: fewer would look like steps


class EnginePlots(msgspec.Struct, frozen=True):
    """Three charts over the same time, each an `<svg>`. `shown`: the spans of that time, from where
    something is known on. `has_live`: whether live streams began."""

    shown: Sequence[EngineSpanObject]
    latency: Markup
    tokens: Markup
    window: Markup
    has_live: bool
    gave_way: bool


def engine_plot(spans: Sequence[EngineSpanObject]) -> EnginePlots | None:
    """The plots, from where something is known of the engine on; None where nothing is."""
    known = len(list(dropwhile(_is_unknown, spans)))
    if not known:
        return None
    spans = spans[-max(known, _SPANS_MIN) :]
    if len(spans) > 1 and spans[-1].seconds < _BEGUN_S:
        spans = spans[:-1]  # what was done in it is mostly not written yet
    last = spans[-1]
    scale = time_scale(_instant(spans[0].at), _instant(last.at + last.seconds))
    bands = list(_bands(spans))
    fast = [each.live_ttft_p50_s for each in spans]
    slow = [each.live_ttft_p99_s for each in spans]
    latency = Chart(
        scale=scale,
        curves=[_curve("slow", spans, slow), _curve("median", spans, fast)],
        words=f"Seconds to the first byte of live calls: {_largest(fast)} at most for half of"
        f" them, {_largest(slow)} for 99 of 100",
        bands=bands,
        unit="s",
    )
    rates = [each.tokens_per_s for each in spans]
    tokens = Chart(
        scale=scale,
        curves=[_curve("tokens", spans, rates, is_area=True)],
        words=f"Batch tokens per second: {_largest(rates)} at most",
        bands=bands,
        unit="/s",
    )
    return EnginePlots(
        list(dropwhile(_is_unknown, spans)),
        drawn(latency),
        drawn(tokens),
        drawn(_window(spans, scale, bands)),
        any(each.live_streams for each in spans),
        bool(bands),
    )


def _window(spans: Sequence[EngineSpanObject], scale: TimeScale, bands: Sequence[Band]) -> Chart:
    allowed, running = [each.window for each in spans], [each.in_flight for each in spans]
    return Chart(
        scale=scale,
        curves=[
            _curve("done", spans, running, is_area=True),
            _curve("window", spans, allowed),
        ],
        words=f"Batch calls in flight: {_largest(running)} at most, of {_largest(allowed)} allowed",
        bands=bands,
    )


def _curve(
    role: Role,
    spans: Sequence[EngineSpanObject],
    values: Sequence[float | None],
    *,
    is_area: bool = False,
) -> Curve:
    """One value for each span; where there is none, there is a gap."""
    points = [(_instant(each.at), value) for each, value in zip(spans, values, strict=True)]
    end = _instant(spans[-1].at + spans[-1].seconds), values[-1]
    return Curve(role=role, points=[*points, end], is_area=is_area)


def _bands(spans: Sequence[EngineSpanObject]) -> Iterator[Band]:
    """Each stretch of time in which batch calls made way for live ones."""
    for gives, group in groupby(spans, key=lambda each: each.gave_way_s > 0 or each.taken_back > 0):
        if gives:
            stretch = list(group)
            taken = sum(each.taken_back for each in stretch)
            words = "batch gave way to live calls" + (f", {taken} aborted" if taken else "")
            end = _instant(stretch[-1].at + stretch[-1].seconds)
            yield Band(_instant(stretch[0].at), end, "gave-way", words)


def _is_unknown(span: EngineSpanObject) -> bool:
    """Whether no process recorded anything then."""
    return span.window is None and not span.live_streams


def _largest(values: Sequence[float | None]) -> str:
    known = [each for each in values if each is not None]
    return short_number(max(known)) if known else "none"


def _instant(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)
