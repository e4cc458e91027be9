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


def test_cells_in_the_order_of_the_input_lead_to_their_lines() -> None:
    ended = [
        PartObject(first=0, count=10, settled=10, failed=0, state="done", place=0),
        PartObject(first=10, count=10, settled=10, failed=2, state="failed", place=0),
        PartObject(first=20, count=10, settled=10, failed=3, state="failed", place=2),
        PartObject(first=30, count=10, settled=10, failed=0, state="done", place=25),
    ]
    links = [each for each in ET.fromstring(strip_plot(ended, "/lines")).iter() if each.tag == "a"]
    assert [(each.get("href"), each.get("data-count")) for each in links] == [
        ("/lines?first=0", "10"),
        ("/lines?kind=errors&first=0", "5"),
        ("/lines?first=25", "10"),
    ]
    assert links[1].get("aria-label") == "with failures: 5 lines from line 11 on"


def test_what_is_done_of_parts_that_go_on_shows_in_them() -> None:
    paused = [
        PartObject(first=0, count=128, settled=64, failed=0, state="paused"),
        PartObject(first=128, count=128, settled=0, failed=0, state="paused"),
        PartObject(first=256, count=128, settled=100, failed=1, state="failed"),
    ]
    svg = strip_plot(paused)
    filled = [each for each in ET.fromstring(svg).iter() if each.get("class") == "cell-done"]
    assert [(each.get("x"), each.get("y"), each.get("height")) for each in filled] == [
        ("0.000%", "11", "11")
    ]
