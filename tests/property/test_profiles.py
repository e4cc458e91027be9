"""The draws of a property test are the same in each run, whatever ran before it."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from property_profiles import RANDOM, RANDOM_FACTOR, REPEATABLE, examples


def drawn() -> list[tuple[str, int, float]]:
    """What a test with many kinds of draws is given under the profile of `make test`."""
    got: list[tuple[str, int, float]] = []

    @settings(settings.get_profile(REPEATABLE), max_examples=300)
    @given(st.text(), st.integers(), st.floats())
    def collect(text: str, number: int, share: float) -> None:
        got.append((text, number, share))

    collect()
    return got


def test_draws_do_not_depend_on_the_modules_that_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn()
    place = tmp_path / "odd_constants.py"
    place.write_text("NAME, SIZE, SHARE = 'a name that nobody draws', 7310529, 0.73105\n")
    spec = spec_from_file_location(place.stem, place)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, place.stem, module)
    assert repr(drawn()) == repr(before)  # as text: NaN is not equal to itself


def test_no_profile_looks_at_a_clock_or_at_an_earlier_run() -> None:
    for name in (REPEATABLE, RANDOM):
        profile = settings.get_profile(name)
        assert (profile.deadline, profile.database) == (None, None)
    assert settings.get_profile(REPEATABLE).derandomize
    assert not settings.get_profile(RANDOM).derandomize


def test_the_random_profile_plays_more_of_each_test() -> None:
    usual, many = (settings.get_profile(name).max_examples for name in (REPEATABLE, RANDOM))
    assert many == RANDOM_FACTOR * usual
    fresh = settings.get_current_profile_name() == RANDOM
    assert examples(7) == (7 * RANDOM_FACTOR if fresh else 7)
