"""core/batches/plan.py: records, chunks, shares."""

import pytest

from lowtide import limits
from lowtide.core.batches.plan import (
    RECORD_BYTES,
    ChunkSpec,
    ModelTotals,
    PlanEntry,
    PlanError,
    build_plan,
    pack_entries,
    unpack_entries,
)


def records(count: int, *, length: int = 10, tokens: int = 3) -> bytes:
    return pack_entries(PlanEntry(n + 1, n * length, length, tokens) for n in range(count))


def test_a_record_is_twenty_bytes_and_comes_back_as_it_went_in() -> None:
    entries = [PlanEntry(1, 0, 5, 2), PlanEntry(2**32 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1)]
    packed = pack_entries(entries)
    assert len(packed) == 2 * RECORD_BYTES == 40
    assert unpack_entries(packed) == entries


def test_a_truncated_buffer_is_refused() -> None:
    with pytest.raises(PlanError, match="19 bytes"):
        unpack_entries(records(1)[:-1])


def test_no_records_make_an_empty_plan() -> None:
    plan = build_plan({})
    assert (plan.data, plan.chunks, plan.models, plan.requests) == (b"", (), {}, 0)


def test_a_chunk_ends_at_the_request_limit() -> None:
    plan = build_plan({"m": records(limits.CHUNK_REQUESTS_MAX * 2 + 1)})
    assert [chunk.count for chunk in plan.chunks] == [128, 128, 1]
    assert [chunk.first for chunk in plan.chunks] == [0, 128, 256]
    assert [chunk.seq for chunk in plan.chunks] == [0, 1, 2]


def test_a_chunk_ends_before_it_would_pass_the_byte_limit() -> None:
    half = limits.CHUNK_BYTES_MAX // 2
    plan = build_plan({"m": records(3, length=half)})
    assert [(chunk.count, chunk.input_bytes) for chunk in plan.chunks] == [(2, 2 * half), (1, half)]


def test_a_line_larger_than_a_chunk_gets_its_own() -> None:
    entries = [
        PlanEntry(1, 0, 10, 3),
        PlanEntry(2, 10, limits.CHUNK_BYTES_MAX + 1, 9),
        PlanEntry(3, 99, 10, 3),
    ]
    plan = build_plan({"m": pack_entries(entries)})
    assert [chunk.count for chunk in plan.chunks] == [1, 1, 1]


def test_chunks_never_mix_models_and_shares_add_up() -> None:
    plan = build_plan({"b": records(2), "a": records(1, tokens=7)})
    assert plan.chunks == (
        ChunkSpec(0, "b", 0, 2, 6, 20),
        ChunkSpec(1, "a", 2, 1, 7, 10),
    )
    assert list(plan.models) == ["b", "a"]
    assert plan.models == {"b": ModelTotals(2, 6), "a": ModelTotals(1, 7)}
    assert plan.requests == 3
