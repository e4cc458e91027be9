"""The simulated engine reaches what was published for a real one, within the spread it has.

Seven of the ten points, short runs; `python -m bench.bench_engine_sim` has all, with longer ones.
"""

import pytest

from lowtide.engine_sim.benchmarks import published

POINTS = (0, 1, 2, 4, 6, 7, 9)


@pytest.mark.parametrize("profile", published.PUBLISHED)
def test_published_throughput_is_met_within_the_stated_spread(profile: str) -> None:
    points = [published.best_point(profile, index, rounds=3) for index in POINTS]
    found = published.spread(points)
    table = [f"{p.prompt}/{p.output} {p.ratio:.3f}" for p in points]
    least, greatest, mean = published.SPREAD[profile]
    assert found[0] >= least - published.TOLERANCE, table
    assert found[1] <= greatest + published.TOLERANCE, table
    assert found[2] == pytest.approx(mean, abs=published.TOLERANCE), table
