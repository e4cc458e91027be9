"""Tables of bench-live of which only a part was run again."""

from bench.live_traffic.experiments import FRONTIER, RULES
from bench.live_traffic.tables import merged

OLD = [
    "| flags | live load | rule | TTFT p99 |",
    "|---|---|---|---|",
    "| stock | steady 10/s | no batch | 0.06 s (0.06 s to 0.07 s) |",
    "| stock | steady 10/s | fixed 256 | 6.79 s |",
    "| stock | steady 10/s | **Lowtide** | 0.17 s |",
    "| smooth | steady 10/s | **Lowtide** | 0.11 s |",
]


def test_a_part_replaces_the_rows_that_it_has_run_and_leaves_the_others() -> None:
    new = [*OLD[:3], "| stock | steady 10/s | **Lowtide** | 0.14 s |"]
    assert merged(OLD, new) == [*OLD[:4], new[3], OLD[5]]


def test_a_row_that_the_table_does_not_have_is_not_added() -> None:
    assert merged(OLD[:3], OLD) == OLD[:3]


def test_a_rule_has_one_meaning_under_all_flags() -> None:
    """Those of FRONTIER send no priority, without which a scheduler class knows no batch."""
    assert not RULES.keys() & FRONTIER.keys()
