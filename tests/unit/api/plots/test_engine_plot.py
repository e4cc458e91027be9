"""The plots of an engine: gaps where nothing is known, marks where batch gave way."""

from typing import Any
from xml.etree import ElementTree as ET

from lowtide.api.objects.history import EngineSpanObject
from lowtide.api.plots.engine_plot import EnginePlots, engine_plot

NOON = 1_772_366_400


def span(number: int, **fields: Any) -> EngineSpanObject:
    usual: dict[str, Any] = {
        "at": NOON + 30 * number,
        "seconds": 30,
        "batch_requests": 3,
        "input_tokens": 200,
        "output_tokens": 100,
        "tokens_per_s": 10.0,
        "live_streams": 0,
        "live_ttft_p50_s": None,
        "live_ttft_p99_s": None,
        "gave_way_s": 0.0,
        "taken_back": 0,
        "window": 8.0,
        "in_flight": 6.5,
    }
    return EngineSpanObject(**{**usual, **fields})


def plots(*spans: EngineSpanObject) -> EnginePlots:
    found = engine_plot(spans)
    assert found is not None
    return found


def paths(svg: str, role: str) -> str:
    (path,) = (
        each.get("d", "")
        for each in ET.fromstring(svg).iter()
        if each.get("class") == f"plot-line plot-{role}"
    )
    return path


def test_an_engine_of_which_nothing_is_known_has_no_plot() -> None:
    assert engine_plot([span(0, window=None, in_flight=None)]) is None


def test_the_plot_begins_where_something_is_known() -> None:
    unknown = [span(each, window=None, in_flight=None, tokens_per_s=0.0) for each in range(50)]
    found = plots(*unknown, *(span(each) for each in range(50, 80)))
    assert paths(found.window, "window").startswith("M0.0 ")
    short = plots(*unknown, span(50), span(51))
    assert paths(short.window, "window").startswith("M900.0 "), "ten minutes at least"


def test_what_is_shown_begins_where_something_is_known() -> None:
    unknown = [span(each, window=None, in_flight=None) for each in range(50)]
    found = plots(*unknown, span(50), span(51), span(52, seconds=3))
    assert [each.at for each in found.shown] == [NOON + 1500, NOON + 1530]


def test_a_long_stretch_that_goes_on_is_drawn() -> None:
    found = plots(span(0, seconds=480), span(16, seconds=60, gave_way_s=4.0))
    assert found.gave_way


def test_a_stretch_that_has_just_begun_is_not_drawn() -> None:
    found = plots(span(0, tokens_per_s=10.0), span(1, seconds=3, tokens_per_s=500.0))
    assert "Batch tokens per second: 10 at most" in found.tokens


def test_a_time_without_live_calls_is_a_gap_and_no_zero() -> None:
    seen = {"live_streams": 4, "live_ttft_p50_s": 0.2, "live_ttft_p99_s": 0.9}
    found = plots(span(0, **seen), span(1), span(2, **seen))
    assert found.has_live
    assert paths(found.latency, "median").count("M") == 2
    assert "0.2 at most for half of them, 0.9 for 99 of 100" in found.latency
    quiet = plots(span(0))
    assert not quiet.has_live
    assert paths(quiet.latency, "slow") == ""


def test_times_in_which_batch_gave_way_are_one_band_each() -> None:
    found = plots(
        span(0), span(1, gave_way_s=5.0), span(2, taken_back=2), span(3), span(4, gave_way_s=1.0)
    )
    assert found.gave_way
    bands = [
        each for each in ET.fromstring(found.tokens).iter() if "plot-band" in each.get("class", "")
    ]
    assert [(each.get("x"), each.get("width")) for each in bands] == [
        ("200.0", "400.0"),
        ("800.0", "200.0"),
    ]
    assert "batch gave way to live calls, 2 aborted" in found.tokens
