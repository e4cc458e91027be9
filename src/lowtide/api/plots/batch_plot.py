"""The plots of one batch: how far it is and when it will be done, and how fast it went.

Called by the console's page of a batch and by reports; `batch_plot` is the one function for both.
It draws what the HTTP API tells, so whoever has that can draw the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from markupsafe import Markup

from lowtide.api.objects.batches import BatchObject
from lowtide.api.objects.history import BatchEventObject, RateObject
from lowtide.api.plots.chart import Area, Band, Chart, Curve, Mark, Role, drawn
from lowtide.api.plots.scales import TimeScale, short_number, time_scale
from lowtide.core.history.batch_events import BatchEvent, Kind
from lowtide.core.history.measured_pace import held_stretches

_POINTS_MAX = 150  # a chart is 300 to 400 pixels wide, and drawn again every two seconds
_PAUSES: Final[tuple[Kind, ...]] = ("paused", "resumed")


class BatchPlots(msgspec.Struct, frozen=True):
    """Three charts, each an `<svg>`; that of the progress goes on into the time to come."""

    progress: Markup
    requests: Markup
    tokens: Markup
    gave_way: bool
    """Whether engines gave live calls the room meanwhile."""
    has_deadline: bool
    """Whether the deadline is near enough to stand in the first one."""
    was_paused: bool
    """Whether it was paused in the time that is drawn, so that a shade needs its words."""


def batch_plot(
    batch: BatchObject,
    rates: Sequence[RateObject],
    events: Sequence[BatchEventObject] = (),
    gave_way: Sequence[tuple[float, float]] = (),
) -> BatchPlots | None:
    """The plots; None while there is nothing to draw. `gave_way`: from and to, in Unix seconds,
    when engines of its models gave live calls the room.
    """
    if not rates or batch.in_progress_at is None:
        return None
    while len(rates) > _POINTS_MAX:
        rates = _in_twos(rates)
    end = rates[-1].at + rates[-1].seconds
    scale, has_deadline = _scale(batch, rates[0].at, end)
    pauses = list(_paused(batch, events, end))
    bands = [*pauses, *_yielded(gave_way)]
    marks = _marks(events)
    ahead = [Mark(_instant(end), "now", "now")] if _runs(batch) else []
    if has_deadline and batch.expires_at is not None:
        ahead.append(Mark(_instant(batch.expires_at), "deadline", "deadline"))
    whole = rates[:-1] if _runs(batch) and len(rates) > 1 else rates  # the last one has just begun

    def rate_chart(what: str, role: Role, value: str, *more: Curve) -> Markup:
        values = [getattr(each, value) for each in whole]
        return drawn(
            Chart(
                scale=time_scale(_instant(rates[0].at), _instant(end)),
                curves=[Curve(role=role, points=_held(whole, value), is_area=True), *more],
                words=f"{what} per second: {short_number(values[-1])} at last,"
                f" {short_number(max(values))} at most",
                bands=bands,
                marks=marks,
                unit="/s",
            )
        )

    failed = [Curve(role="failed", points=_held(whole, "failed_per_s"))]
    has_failed = any(each.failed for each in rates)
    return BatchPlots(
        drawn(_progress(batch, rates, scale, bands, [*marks, *ahead])),
        rate_chart("Requests", "done", "requests_per_s", *(failed if has_failed else [])),
        rate_chart("Tokens", "tokens", "tokens_per_s"),
        bool(gave_way),
        has_deadline,
        bool(pauses),
    )


def _in_twos(rates: Sequence[RateObject]) -> list[RateObject]:
    """Each two neighbours as one of both their lengths; the last one may be alone."""
    return [
        _joined(*rates[number : number + 2]) if number + 1 < len(rates) else rates[number]
        for number in range(0, len(rates), 2)
    ]


def _joined(first: RateObject, second: RateObject) -> RateObject:
    seconds = first.seconds + second.seconds
    share = first.seconds / seconds
    return RateObject(
        at=first.at,
        seconds=seconds,
        completed=first.completed + second.completed,
        failed=first.failed + second.failed,
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        requests_per_s=share * first.requests_per_s + (1 - share) * second.requests_per_s,
        failed_per_s=share * first.failed_per_s + (1 - share) * second.failed_per_s,
        tokens_per_s=share * first.tokens_per_s + (1 - share) * second.tokens_per_s,
    )


def _held(rates: Sequence[RateObject], value: str) -> list[tuple[datetime, float | None]]:
    """The rate at the begin of each bucket, and the last one again at its end."""
    points = [(_instant(each.at), getattr(each, value)) for each in rates]
    return [*points, (_instant(rates[-1].at + rates[-1].seconds), points[-1][1])]


def _scale(batch: BatchObject, since: float, end: float) -> tuple[TimeScale, bool]:
    """The axis: what was, what is foreseen up to the later end, and the deadline if it is near."""
    until = end
    if _runs(batch):
        until = max(end, batch.cautious_completion_at or batch.estimated_completion_at or end)
    deadline = batch.expires_at
    has_deadline = deadline is not None and since < deadline <= since + 1.6 * (until - since)
    if has_deadline and deadline is not None:
        until = max(until, deadline + 0.01 * (deadline - since))
    return time_scale(_instant(since), _instant(until)), has_deadline


def _progress(
    batch: BatchObject,
    rates: Sequence[RateObject],
    scale: TimeScale,
    bands: Sequence[Band],
    marks: Sequence[Mark],
) -> Chart:
    done, points = 0, [(_instant(rates[0].at), 0.0)]
    for each in rates:
        done += each.completed + each.failed
        points.append((_instant(each.at + each.seconds), float(done)))
    curves = [Curve(role="done", points=points, is_area=True, holds=False)]
    total, ready = batch.request_counts.total, batch.estimated_completion_at
    words = f"Requests done: {done:,} of {total:,}"
    areas = []
    if _runs(batch) and ready is not None:
        usual = [points[-1], (_instant(ready), float(total))]
        curves.append(Curve(role="planned", points=usual, holds=False))
        words += f", all of them foreseen for {_instant(ready):%Y-%m-%d %H:%M} UTC"
        if (late := batch.cautious_completion_at) is not None:
            areas.append(Area("planned", [*usual, (_instant(late), float(total))]))
            words += f", at a slow pace for {_instant(late):%Y-%m-%d %H:%M} UTC"
    return Chart(
        scale=scale,
        curves=curves,
        words=words,
        bands=bands,
        areas=areas,
        marks=marks,
        top=float(total),
    )


def _paused(batch: BatchObject, events: Sequence[BatchEventObject], end: float) -> Iterator[Band]:
    """Bands for the times in which the batch was held; one that nothing ended lasts until `end`."""
    steps = [
        BatchEvent(at=_instant(each.at), kind=kind, detail=each.detail or "")
        for each in events
        for kind in _PAUSES
        if each.kind == kind
    ]
    is_held = bool(batch.holds) or (bool(steps) and steps[-1].kind == "paused")
    for since, until in held_stretches(steps, _instant(end) if is_held else None):
        if until > since:
            begun = [each for each in steps if each.kind == "paused" and since <= each.at < until]
            why = dict.fromkeys(each.detail for each in begun if each.detail)
            words = f"paused: {', '.join(why)}" if why else "paused"
            yield Band(since, until, "paused", words)


def _yielded(gave_way: Iterable[tuple[float, float]]) -> Iterator[Band]:
    for since, until in gave_way:
        yield Band(_instant(since), _instant(until), "gave-way", "gave way to live calls")


def _marks(events: Sequence[BatchEventObject]) -> list[Mark]:
    told = {"worker_lost": "a worker was lost", "changed": "changed", "cancel_asked": "cancelled"}
    return [
        Mark(_instant(each.at), "event", f"{told[each.kind]} {each.detail or ''}".strip())
        for each in events
        if each.kind in told
    ]


def _runs(batch: BatchObject) -> bool:
    return batch.status in ("in_progress", "cancelling")


def _instant(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)
