"""The strip of a batch's parts."""

from xml.etree import ElementTree as ET

from lowtide.api.objects.history import PartObject
from lowtide.api.plots.strip_plot import strip_plot


def part(first: int, count: int, state: str) -> PartObject:
    return PartObject(first=first, count=count, settled=0, failed=0, state=state)


def test_neighbours_of_one_state_are_one_rectangle_as_wide_as_their_requests() -> None:
    states = ["done"] * 300 + ["failed"] + ["done"] * 99 + ["running"] * 100
    svg = strip_plot([part(number, 10, state) for number, state in enumerate(states)])
    cells = [
        (each.get("class"), each.get("x"), each.get("width"))
        for each in ET.fromstring(svg).iter()
        if each.tag.endswith("rect")
    ]
    assert cells == [
        ("cell cell-done", "0.000%", "60.000%"),
        ("cell cell-failed", "60.000%", "0.200%"),
        ("cell cell-done", "60.200%", "19.800%"),
        ("cell cell-running", "80.000%", "20.000%"),
    ]
    assert 'aria-label="500 parts: 399 done, 1 with failures, 100 running"' in svg
