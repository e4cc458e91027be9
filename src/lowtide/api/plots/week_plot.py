"""The week of one model: a cell for each hour, and the course of its batches over the coming day.

Called by the console's page of the week. It draws `GET /v1/admin/forecast`. An hour that was not
learned is left empty: it is no hour without capacity.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from markupsafe import Markup

from lowtide.api.objects.forecast import CourseObject, HourObject
from lowtide.api.plots.scales import short_number, time_scale

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_STEPS: Final = 5  # shades between nothing and the largest
_CELL: Final = 16  # pixels of a row of cells
_ROW: Final = 22  # pixels of a batch's row
_LEFT: Final = 34  # pixels for the days, left of the cells: the margin of `.plot-week`


def week_plot(hours: Sequence[HourObject], at: float) -> Markup:
    """168 cells, the hour of `at` (Unix seconds) framed."""
    known = {each.hour: each for each in hours}
    largest = max((each.p50 for each in hours), default=0.0)
    now = datetime.fromtimestamp(at, UTC)
    current = now.weekday() * 24 + now.hour
    cells = [_cell(number, known.get(number), largest, number == current) for number in range(168)]
    days = [
        Markup('<text x="{}" y="{}">{}</text>').format(-_LEFT, _CELL * number + 12, day)
        for number, day in enumerate(DAYS)
    ]
    ticks = [
        Markup('<text x="{}%" y="{}">{:02d}:00</text>').format(_x(hour), 7 * _CELL + 13, hour)
        for hour in range(0, 24, 6)
    ]
    words = f"Capacity for batches by hour of the week, UTC: {len(known)} of 168 hours learned"
    if known:
        words += f", {short_number(largest)} work units a second at most"
    whole = '<svg class="plot plot-week" role="img" aria-label="{}">{}</svg>'
    return Markup(whole).format(words, Markup("").join([*cells, *days, *ticks]))


def course_plot(
    courses: Sequence[CourseObject], at: float, names: Mapping[str, str] = MappingProxyType({})
) -> Markup:
    """A row for each batch over the coming day: until when it runs, and its deadline. `names`: by
    id, where a batch is called otherwise.
    """
    now = datetime.fromtimestamp(at, UTC)
    scale = time_scale(now, now + timedelta(days=1))
    rows: list[Markup] = []
    for number, course in enumerate(courses):
        top = _ROW * number
        end = scale.until if course.end_at is None else datetime.fromtimestamp(course.end_at, UTC)
        role = "unknown" if course.end_at is None else course.verdict
        bar = '<rect class="course course-{}" x="0" y="{}" width="{:.2f}%" height="8"/>'
        rows.append(Markup(bar).format(role, top + 12, 100 * max(0.004, scale.share(end))))
        due = datetime.fromtimestamp(course.deadline_at, UTC)
        if scale.since <= due <= scale.until:
            x = f"{100 * scale.share(due):.2f}%"
            mark = (
                '<line class="plot-mark plot-deadline" x1="{}" x2="{}" y1="{}" y2="{}">'
                "<title>deadline</title></line>"
            )
            rows.append(Markup(mark).format(x, x, top + 4, top + _ROW))
        name = names.get(course.batch_id, course.batch_id)
        rows.append(Markup('<text x="2" y="{}">{}</text>').format(top + 9, name))
    for tick in scale.ticks():
        text = (
            '<text class="plot-instant" x="{:.2f}%" y="{}" data-at="{}" data-shown="time">{}</text>'
        )
        iso = tick.at.isoformat() if tick.at is not None else ""
        rows.append(
            Markup(text).format(100 * tick.share, _ROW * len(courses) + 13, iso, tick.label)
        )
    words = f"Course of {len(courses)} batches over the coming day"
    whole = '<svg class="plot plot-courses" height="{}" role="img" aria-label="{}">{}</svg>'
    return Markup(whole).format(_ROW * len(courses) + 18, words, Markup("").join(rows))


def _cell(number: int, hour: HourObject | None, largest: float, is_now: bool) -> Markup:
    day, place = divmod(number, 24)
    when = f"{DAYS[day]} {place:02d}:00 UTC"
    if hour is None:
        shade, words = "none", f"{when}: not learned yet"
    else:
        shade = str(round(_STEPS * hour.p50 / largest) if largest else 0)
        weeks = f"{hour.weeks} week{'' if hour.weeks == 1 else 's'}"
        words = (
            f"{when}: {short_number(hour.p50)} work units a second, in four weeks of five"
            f" {short_number(hour.p20)}, from {weeks}"
        )
    shape = (
        '<rect class="heat heat-{}{}" x="{}%" y="{}" width="{}%" height="{}">'
        "<title>{}</title></rect>"
    )
    return Markup(shape).format(
        shade, " heat-now" if is_now else "", _x(place), _CELL * day + 1,
        round(100 / 24 - 0.25, 3), _CELL - 2, words,
    )  # fmt: skip


def _x(hour: int) -> float:
    """Percent of the width of all cells."""
    return round(hour * 100 / 24, 3)
