"""Words for what keeps an engine's batch calls from being more."""

from typing import get_args

from lowtide.core.capacity.window import Bound
from lowtide.core.reporting.bound_words import BOUND_WORDS, bound_words


def test_every_bound_has_words() -> None:
    assert set(BOUND_WORDS) == set(get_args(Bound))
    assert all(bound_words(each) != each for each in get_args(Bound))


def test_a_bound_of_another_version_is_told_as_it_is() -> None:
    assert bound_words("moon") == "moon"
