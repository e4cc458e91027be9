"""With which draws the property tests are played, and how many of them.

`tests/conftest.py` loads the profile `repeatable`: each test draws the same examples in each run,
on every machine, whatever ran before it, so that a run tells of the code and of nothing else.
`make test-random` loads the profile `random` instead: fresh draws, many more of them. Nothing here
looks at a clock: a slow machine plays the same examples, only later.
"""

from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

REPEATABLE: Final = "repeatable"
RANDOM: Final = "random"

RANDOM_FACTOR: Final = 20
"""How many times more examples the profile `random` plays: some minutes instead of seconds."""

_PACE_OF_THE_MACHINE: Final = [HealthCheck.too_slow]


def register_profiles() -> None:
    """Make both known, and load the repeatable one; `--hypothesis-profile` may load the other."""
    bounds = settings(deadline=None, database=None, suppress_health_check=_PACE_OF_THE_MACHINE)
    settings.register_profile(REPEATABLE, bounds, derandomize=True)
    more = bounds.max_examples * RANDOM_FACTOR
    # Said as well: on a build machine (CI=true) Hypothesis would otherwise repeat its draws.
    settings.register_profile(RANDOM, bounds, derandomize=False, max_examples=more, print_blob=True)
    settings.load_profile(REPEATABLE)
    draw_no_constants_of_loaded_modules()


def examples(count: int, *, factor: int = RANDOM_FACTOR) -> int:
    """How many examples a test plays that asks for `count` instead of the usual hundred. `factor`:
    of a test whose examples are so dear that the usual factor would take an hour.
    """
    return count * factor if settings.get_current_profile_name() == RANDOM else count


def unhurried(*also: HealthCheck) -> list[HealthCheck]:
    """The health checks that a test switches off: `also`, and what looks at the machine's pace."""
    return [*_PACE_OF_THE_MACHINE, *also]


def draw_no_constants_of_loaded_modules() -> None:
    """Hypothesis draws now and then a constant from the source of any module that is loaded.

    Which ones are loaded depends on the tests that ran before in this process, so that the same
    test would draw other examples beside other tests. There is no setting for it.
    """
    empty = providers.Constants()
    providers._get_local_constants = lambda: empty
