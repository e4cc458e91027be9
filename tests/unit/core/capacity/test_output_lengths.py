"""core/capacity/output_lengths.py: answer lengths from finished and unfinished answers."""

import random

import pytest

from lowtide import limits
from lowtide.core.capacity.output_lengths import OutputLengths, bucket_of


def learnt(*lengths: int) -> OutputLengths:
    known = OutputLengths()
    for length in lengths:
        known.finished(length)
    return known


def product_limit(ended: list[int], ages: list[float]) -> dict[int, float]:
    """Kaplan and Meier's product, death by death over the sorted sample: bucket -> mass."""
    sample = sorted(
        [(bucket_of(length), 0) for length in ended] + [(bucket_of(age), 1) for age in ages]
    )
    survives = 1.0
    mass: dict[int, float] = {}
    for place, (bucket, is_censored) in enumerate(sample):
        if not is_censored:
            step = survives / (len(sample) - place)
            mass[bucket] = mass.get(bucket, 0.0) + step
            survives -= step
    return mass


def test_nothing_is_known_of_no_answers() -> None:
    assert OutputLengths().stats() is None
    assert OutputLengths().stats([0.0, 0.0]) is None


def test_equal_answers_have_that_length_within_a_bucket() -> None:
    stats = learnt(*[300] * 50).stats()
    assert stats is not None
    assert stats.mean == pytest.approx(300, rel=0.1)
    assert stats.mean_held == pytest.approx(150, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_the_estimate_is_the_product_limit_of_the_same_sample(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [max(1, int(draw.lognormvariate(5, 1))) for _ in range(300)]
    seen_up_to = [draw.uniform(0, 600) for _ in lengths]
    ended = [n for n, seen in zip(lengths, seen_up_to, strict=True) if n <= seen]
    ages = [seen for n, seen in zip(lengths, seen_up_to, strict=True) if n > seen]
    brute = product_limit(ended, ages)
    ours = {bucket_of(length): mass for length, mass in learnt(*ended)._distribution(ages)}
    for bucket, mass in brute.items():
        assert ours[bucket] == pytest.approx(mass, abs=1e-9)


def test_the_long_answers_under_way_are_not_forgotten() -> None:
    """Half an hour into a run only the short ones have finished."""
    draw = random.Random(1)
    lengths = [draw.lognormvariate(6, 1) for _ in range(4000)]
    shown = 400.0
    known = learnt(*(int(n) for n in lengths if n <= shown))
    flying = [shown for n in lengths if n > shown]
    truth = sum(lengths) / len(lengths)
    naive, censored = known.stats(), known.stats(flying)
    assert naive is not None and censored is not None
    assert naive.mean < 0.35 * truth
    assert 0.75 * truth < censored.mean < 1.5 * truth


def test_calls_that_only_run_are_expected_to_run_as_long_again() -> None:
    stats = OutputLengths().stats([100.0, 400.0])
    assert stats is not None
    assert stats.mean == pytest.approx(800.0)


def test_a_call_shorter_than_all_that_finished_changes_nothing() -> None:
    known = learnt(1000, 1100)
    assert known.stats([5.0]) == known.stats()


def test_a_new_kind_of_answers_takes_over() -> None:
    known = learnt(*[10] * limits.LENGTH_MEMORY)
    for _ in range(6 * limits.LENGTH_MEMORY):
        known.finished(1000)
    stats = known.stats()
    assert stats is not None
    assert stats.mean == pytest.approx(1000, rel=0.12)
    assert known.count <= 2 * limits.LENGTH_MEMORY


def test_every_length_has_a_bucket() -> None:
    assert [bucket_of(n) for n in (0, 1, 2, 4, 10**12)] == [0, 0, 4, 8, 79]
