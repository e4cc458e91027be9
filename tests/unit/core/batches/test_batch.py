"""core/batches/batch.py: the state table, cell by cell."""

from typing import get_args

import pytest

from lowtide.core.batches.batch import (
    ASSEMBLING,
    INSTANT_OF,
    TERMINAL,
    TRANSITIONS,
    Batch,
    Counts,
    Event,
    IllegalTransition,
    Status,
    error_file_id,
    output_file_id,
    sources_of,
    step,
)

TABLE: dict[tuple[Status, Event], Status] = {
    ("validating", "planned"): "in_progress",
    ("validating", "rejected"): "failed",
    ("validating", "cancel"): "cancelling",
    ("validating", "expire"): "expiring",
    ("in_progress", "settled"): "finalizing",
    ("in_progress", "input_lost"): "finalizing",
    ("in_progress", "cancel"): "cancelling",
    ("in_progress", "expire"): "expiring",
    ("finalizing", "assembled"): "completed",
    ("finalizing", "results_lost"): "in_progress",
    ("expiring", "assembled"): "expired",
    ("cancelling", "assembled"): "cancelled",
}
"""What may happen, written a second time: a change of the table has to be meant."""

EVERY_CELL = [(status, event) for status in get_args(Status) for event in get_args(Event)]


@pytest.mark.parametrize(("status", "event"), EVERY_CELL)
def test_every_cell_of_the_table_is_as_written_here(status: Status, event: Event) -> None:
    if (status, event) in TABLE:
        assert step(status, event) == TABLE[status, event]
        return
    with pytest.raises(IllegalTransition) as refusal:
        step(status, event)
    assert (refusal.value.status, refusal.value.event) == (status, event)
    assert status in str(refusal.value) and event in str(refusal.value)


def test_every_state_has_a_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(get_args(Status))
    assert {after for row in TRANSITIONS.values() for after in row.values()} | {
        "validating"
    } == set(get_args(Status))


def test_terminal_states_have_no_way_out_and_the_others_have() -> None:
    assert {"completed", "failed", "expired", "cancelled"} == TERMINAL
    assert {"finalizing", "expiring", "cancelling"} == ASSEMBLING


def test_from_every_state_an_end_is_reached_whatever_happens() -> None:
    for start in TRANSITIONS:
        seen, frontier = {start}, [start]
        while frontier:
            for after in TRANSITIONS[frontier.pop()].values():
                if after not in seen:
                    seen.add(after)
                    frontier.append(after)
        assert seen & TERMINAL, start


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS["completed"]["cancel"] = "cancelling"  # type: ignore[index]


def test_sources_of_an_event_are_the_rows_that_have_it() -> None:
    assert sources_of("cancel") == ("validating", "in_progress")
    assert sources_of("settled") == ("in_progress",)


def test_every_state_that_can_be_entered_has_an_instant_on_the_record() -> None:
    entered = {after for row in TRANSITIONS.values() for after in row.values()}
    assert set(INSTANT_OF) == entered
    assert set(INSTANT_OF.values()) <= set(Batch.__struct_fields__)


def test_percent_counts_failures_as_progress_and_is_zero_while_the_total_is_unknown() -> None:
    assert Counts().percent == 0
    assert Counts(total=8, completed=3, failed=1).percent == 50
    assert Counts(total=8, completed=3, failed=1).settled == 4


def test_result_files_are_named_after_their_batch() -> None:
    assert output_file_id("batch_0af3") == "file-out-0af3"
    assert error_file_id("batch_0af3") == "file-err-0af3"
