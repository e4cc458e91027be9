"""What a person wrote into the results of benchmarks outlives the next run."""

from pathlib import Path

from bench import sections
from bench.sections import BY_HAND, merged

OLD = f"""# Benchmarks

Yesterday.

## Speed

Slow.

{BY_HAND}

Why it is slow.

## The console

Written by hand.
"""


def test_a_section_is_replaced_and_what_was_written_by_hand_stays() -> None:
    found = merged(OLD, "# Benchmarks\n\nToday.\n\n## Speed\n\nFast.\n\n## Memory\n\nLittle.\n")
    assert found == (
        "# Benchmarks\n\nToday.\n\n"
        f"## Speed\n\nFast.\n\n{BY_HAND}\n\nWhy it is slow.\n\n"
        "## The console\n\nWritten by hand.\n\n"
        "## Memory\n\nLittle.\n"
    )


def test_a_section_alone_leaves_all_others() -> None:
    assert merged(OLD, "## Speed\n\nSlow.\n") == OLD


def test_the_results_that_are_committed_lose_nothing() -> None:
    results = Path(sections.__file__).with_name("RESULTS.md").read_text()
    assert merged(results, "") == results
