"""core/integrity/consistency.py: what disagrees, and plans that stand in for lost ones."""

import pytest

from lowtide.core.batches.chunk import NOTHING_DONE, mark_done
from lowtide.core.batches.plan import ChunkSpec, Plan, PlanEntry, pack_entries, unpack_entries
from lowtide.core.integrity.consistency import (
    ChunkRow,
    LinePlan,
    Reference,
    bits_of_lines,
    compare,
    is_plan_of,
    plan_of_numbers,
    without_bits,
)


def reference(key: str, size: int, *, segment: bool = False) -> Reference:
    return Reference(need="segment" if segment else "plan", key=key, bytes=size)


def row(**changes: object) -> ChunkRow:
    values = {"seq": 0, "model": "m", "first": 0, "count": 2, "input_bytes": 9}
    return ChunkRow(**(values | {"state": "done", "done": NOTHING_DONE} | changes))  # type: ignore[arg-type]


def test_a_blob_fits_when_it_is_there_with_its_size() -> None:
    found = compare([reference("a", 3), reference("b", 3), reference("c", 3)], {"a": 3, "b": 2})
    assert [(each.kind, each.key, each.bytes) for each in found] == [
        ("size plan", "b", 2),
        ("missing plan", "c", 0),
    ]


def test_a_segment_may_be_longer_than_its_slices_and_never_shorter() -> None:
    wanted = [reference(key, 3, segment=True) for key in "ab"]
    assert [each.key for each in compare(wanted, {"a": 4, "b": 2})] == ["b"]


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"first": 1}, {"count": 3}, {"input_bytes": 8}, {"seq": 1}]
)
def test_a_plan_with_another_chunk_is_another_plan(change: dict[str, object]) -> None:
    plan = Plan(b"", (ChunkSpec(0, "m", 0, 2, 77, 9),), {})
    assert is_plan_of(plan, [row()])
    assert not is_plan_of(plan, [row(**change)])
    assert not is_plan_of(plan, [])


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_line_plan_has_every_line_that_is_not_blank(cut: int) -> None:
    content = b"{}\n\n  \r\n{ }\n{  }"
    plan = LinePlan(100)
    for start in range(0, len(content), cut):
        plan.feed(content[start : start + cut])
    entries = unpack_entries(plan.finish())
    assert [entry.line for entry in entries] == [1, 4, 5]
    places = [(entry.offset, entry.length) for entry in entries]
    assert [content[at : at + length] for at, length in places] == [b"{}", b"{ }", b"{  }"]


def test_numbers_stand_in_for_lines_that_nobody_knows() -> None:
    lines = [entry.line for entry in unpack_entries(plan_of_numbers([2, 7], 5))]
    assert lines == [1, 2, 3, 4, 7]
    assert len(unpack_entries(plan_of_numbers([1, 2, 3], 3))) == 3


def test_lines_are_found_at_their_place_in_the_chunk() -> None:
    plan = pack_entries([PlanEntry(line, 0, 1, 0) for line in (9, 4, 6)])
    chunk = row(first=1, count=2)
    assert bits_of_lines(plan, chunk, [6]) == mark_done(NOTHING_DONE, [1])
    with pytest.raises(KeyError):
        bits_of_lines(plan, chunk, [9])


def test_bits_are_cleared_and_the_others_left() -> None:
    done = mark_done(NOTHING_DONE, [0, 1, 127])
    assert without_bits(done, mark_done(NOTHING_DONE, [1, 5])) == mark_done(NOTHING_DONE, [0, 127])
