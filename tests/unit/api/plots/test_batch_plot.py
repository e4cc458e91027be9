"""The plots of a batch: what stands in them, and that none of it is markup of others."""

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from lowtide.api.objects.batches import BatchObject, CountsObject
from lowtide.api.objects.history import BatchEventObject, RateObject
from lowtide.api.plots.batch_plot import BatchPlots, batch_plot

NOON = 1_772_366_400
RUNNING = BatchObject(
    id="batch_1",
    status="in_progress",
    in_progress_at=NOON,
    expires_at=NOON + 86_400,
    estimated_completion_at=NOON + 300,
    request_counts=CountsObject(total=100, completed=40, failed=10),
)


def rate(number: int, completed: int = 10, failed: int = 0) -> RateObject:
    return RateObject(
        at=NOON + 60 * number,
        seconds=60,
        completed=completed,
        failed=failed,
        input_tokens=100,
        output_tokens=20,
        requests_per_s=(completed + failed) / 60,
        failed_per_s=failed / 60,
        tokens_per_s=2.0,
    )


def plots(batch: BatchObject = RUNNING, rates: int = 3, **more: Any) -> BatchPlots:
    found = batch_plot(batch, [rate(number) for number in range(rates)], **more)
    assert found is not None
    return found


def classes(svg: str) -> list[str]:
    """The classes of all elements; the parser refuses what is no XML."""
    return [each.get("class", "") for each in ET.fromstring(svg).iter()]


def bands(svg: str, role: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(svg).iter() if role in each.get("class", "").split()]


def points(svg: str, role: str) -> list[tuple[float, float]]:
    (line,) = (each.get("d", "") for each in ET.fromstring(svg).iter() if each.get("class") == role)
    found = [each.split(" ") for each in line[1:].split("L")]
    return [(float(x), float(y)) for x, y in found]


def test_a_batch_that_has_not_begun_has_no_plot() -> None:
    assert batch_plot(RUNNING, []) is None
    assert batch_plot(msgspec.structs.replace(RUNNING, in_progress_at=None), [rate(0)]) is None


def test_progress_rises_to_what_is_done_and_is_foreseen_to_reach_all() -> None:
    svg = plots().progress
    done = points(svg, "plot-line plot-done")
    assert all(a[0] < b[0] and a[1] >= b[1] for a, b in pairwise(done))
    assert done[0] == (0.0, 100.0)
    planned = points(svg, "plot-line plot-planned")
    assert planned[0] == done[-1]
    assert planned[-1] == (1000.0, 0.0), "all hundred, at the end of the axis"
    assert "Requests done: 30 of 100" in svg


def test_the_axis_reaches_a_far_end() -> None:
    far = msgspec.structs.replace(RUNNING, estimated_completion_at=NOON + 50_000)
    assert points(plots(far).progress, "plot-line plot-planned")[-1] == (1000.0, 0.0)


def test_a_slow_pace_spans_an_area_beside_the_planned_line() -> None:
    assert "plot-area plot-planned" not in classes(plots().progress)
    assert "slow pace" not in plots().progress
    svg = plots(msgspec.structs.replace(RUNNING, cautious_completion_at=NOON + 400)).progress
    begin, usual, slow = points(svg.replace("Z", ""), "plot-area plot-planned")
    assert [begin, usual] == points(svg, "plot-line plot-planned")
    assert usual == (750.0, 0.0)
    assert slow == (1000.0, 0.0), "the slow end is the end of the axis"
    assert ", at a slow pace for 2026-03-01 12:06 UTC" in svg


def test_the_axis_reaches_a_slow_end_that_is_far_beyond_the_usual_one() -> None:
    svg = plots(msgspec.structs.replace(RUNNING, cautious_completion_at=NOON + 50_000)).progress
    _, usual, slow = points(svg.replace("Z", ""), "plot-area plot-planned")
    assert usual[1] == slow[1] == 0.0
    assert slow[0] == 1000.0


def test_the_deadline_stands_there_where_it_is_near() -> None:
    assert not plots().has_deadline
    near = msgspec.structs.replace(RUNNING, expires_at=NOON + 400)
    found = plots(near)
    assert found.has_deadline
    assert "plot-mark plot-deadline" in classes(found.progress)
    assert "plot-mark plot-deadline" not in classes(plots().progress)


def test_pauses_lost_workers_and_live_traffic_are_marked() -> None:
    events = [
        BatchEventObject(at=NOON + 10, kind="paused", detail="<b>&"),
        BatchEventObject(at=NOON + 60, kind="resumed"),
        BatchEventObject(at=NOON + 90, kind="worker_lost"),
        BatchEventObject(at=NOON + 100, kind="paused"),
    ]
    svg = plots(events=events, gave_way=[(NOON + 20, NOON + 30)]).requests
    found = classes(svg)
    assert found.count("plot-band plot-paused") == 2, "the last one lasts"
    assert found.count("plot-band plot-gave-way") == 1
    assert found.count("plot-mark plot-event") == 1
    assert "paused: &lt;b&gt;&amp;" in svg


def test_a_pause_by_several_lasts_until_the_last_of_them_resumes() -> None:
    events = [
        BatchEventObject(at=NOON, kind="paused", detail="lunch"),
        BatchEventObject(at=NOON + 30, kind="paused", detail="spend cap"),
        BatchEventObject(at=NOON + 45, kind="resumed"),
        BatchEventObject(at=NOON + 90, kind="resumed"),
    ]
    (band,) = bands(plots(events=events).requests, "plot-paused")
    assert (band.get("x"), band.get("width")) == ("0.0", "500.0"), "half of three minutes"
    assert "".join(band.itertext()) == "paused: lunch, spend cap"
    held = msgspec.structs.replace(RUNNING, holds=("operator",))
    (band,) = bands(plots(held, events=events[:3]).requests, "plot-paused")
    assert (band.get("x"), band.get("width")) == ("0.0", "1000.0"), "one of them holds it still"


def test_failures_are_drawn_where_there_are_some() -> None:
    assert "plot-line plot-failed" not in classes(plots().requests)
    failing = batch_plot(RUNNING, [rate(0), rate(1, failed=3), rate(2)])
    assert failing is not None
    assert "plot-line plot-failed" in classes(failing.requests)


def test_a_bucket_that_has_just_begun_says_nothing_yet_of_the_rate() -> None:
    begun = msgspec.structs.replace(rate(3, completed=0), seconds=0.5, requests_per_s=0.0)
    svg = batch_plot(RUNNING, [rate(0), rate(1), begun])
    assert svg is not None
    assert "0.167 at last" in svg.requests


def test_a_batch_that_ended_has_no_now_and_nothing_is_foreseen() -> None:
    ended = msgspec.structs.replace(RUNNING, status="completed", estimated_completion_at=None)
    svg = plots(ended).progress
    assert "plot-mark plot-now" not in classes(svg)
    assert "plot-line plot-planned" not in classes(svg)
    assert points(svg, "plot-line plot-done")[-1][0] == 1000.0


def test_many_buckets_are_joined_and_still_add_up() -> None:
    svg = plots(rates=301).progress
    assert "Requests done: 3,010 of 100" in svg
    done = points(svg, "plot-line plot-done")
    assert len(done) == 77, "a begin, 75 of four buckets, and the last one"
    uneven = [rate(0, completed=30), rate(1, completed=0)] * 100
    found = batch_plot(msgspec.structs.replace(RUNNING, status="completed"), uneven)
    assert found is not None
    assert "Requests per second: 0.25 at last, 0.25 at most" in found.requests


def test_three_hundred_buckets_are_small_and_have_no_style_of_their_own() -> None:
    found = plots(rates=300)
    whole = "".join((found.progress, found.requests, found.tokens))
    assert len(whole) < 20_000
    assert "style" not in whole
    assert "<script" not in whole
