"""The week of a model: every hour has its cell, and what was not learned is no zero."""

from typing import Any
from xml.etree import ElementTree as ET

from lowtide.api.objects.forecast import CourseObject, HourObject
from lowtide.api.plots.week_plot import course_plot, week_plot

SUNDAY_NOON = 1_772_366_400.0  # 2026-03-01 12:00 UTC


def hour(number: int, p50: float) -> HourObject:
    return HourObject(hour=number, p20=p50 / 2, p50=p50, weeks=3)


def cells(svg: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(svg).iter() if "heat" in each.get("class", "")]


def test_each_hour_of_the_week_has_a_cell_and_the_present_one_a_frame() -> None:
    found = cells(week_plot([hour(0, 100.0), hour(156, 1000.0)], SUNDAY_NOON))
    assert len(found) == 168
    shades = [each.get("class", "") for each in found]
    assert shades[0] == "heat heat-0"
    assert shades[1] == "heat heat-none"
    assert shades[156] == "heat heat-5 heat-now", "Sunday noon"
    assert sum("heat-now" in each for each in shades) == 1
    assert found[156][0].text == (
        "Sun 12:00 UTC: 1k work units a second, in four weeks of five 500, from 3 weeks"
    )
    assert found[1][0].text == "Mon 01:00 UTC: not learned yet"


def test_a_week_of_which_nothing_was_learned_is_empty() -> None:
    svg = week_plot([], SUNDAY_NOON)
    assert {each.get("class") for each in cells(svg)} == {
        "heat heat-none",
        "heat heat-none heat-now",
    }
    assert "0 of 168 hours learned" in svg


def course(**fields: Any) -> CourseObject:
    usual: dict[str, Any] = {
        "batch_id": "batch_1",
        "work_left": 5.0,
        "is_paused": False,
        "deadline_at": SUNDAY_NOON + 43_200,
        "end_at": SUNDAY_NOON + 21_600,
        "verdict": "feasible",
    }
    return CourseObject(**{**usual, **fields})


def test_a_batch_is_drawn_until_its_end_with_its_deadline() -> None:
    tree = ET.fromstring(course_plot([course()], SUNDAY_NOON))
    (bar,) = (each for each in tree.iter() if each.get("class", "").startswith("course "))
    assert (bar.get("class"), bar.get("width")) == ("course course-feasible", "25.00%")
    (mark,) = (each for each in tree.iter() if "plot-deadline" in each.get("class", ""))
    assert mark.get("x1") == "50.00%"


def test_a_batch_is_called_by_its_name_where_it_is_known() -> None:
    svg = course_plot([course(), course(batch_id="batch_2")], SUNDAY_NOON, {"batch_1": "a & b"})
    assert ">a &amp; b</text>" in svg
    assert ">batch_2</text>" in svg


def test_an_end_that_is_not_foreseen_is_drawn_as_unknown_and_a_far_deadline_not() -> None:
    far = course(end_at=None, deadline_at=SUNDAY_NOON + 200_000, batch_id="<b>")
    svg = course_plot([far], SUNDAY_NOON)
    assert "course-unknown" in svg
    assert "plot-deadline" not in svg
    assert "&lt;b&gt;" in svg
