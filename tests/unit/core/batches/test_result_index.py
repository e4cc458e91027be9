"""Any line of a result file is found by ranges of its index, whatever its id is."""

from array import array
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.batches.line import output_line_id
from lowtide.core.batches.plan import PlanEntry, pack_entries
from lowtide.core.batches.result_index import (
    HEAD_BYTES,
    IndexWriter,
    LinePlace,
    ResultIndexError,
    custom_id_of,
    guess,
    key_of,
    keys_at,
    line_number_of,
    read_count,
    read_keys,
    read_records,
    records_at,
)


def output(line: int, custom_id: str, more: str = "x") -> bytes:
    ident = output_line_id("batch_abc", line)
    return msgspec.json.encode({"id": ident, "custom_id": custom_id, "response": more}) + b"\n"


def index_of(lines: list[tuple[int, bytes]]) -> bytes:
    writer = IndexWriter()
    writer.add([line for line, _ in lines], [data for _, data in lines])
    return writer.pack()


def found(index: bytes, custom_id: str, spread: int) -> list[int]:
    """The search as its reader does it, widening from `spread` keys on."""
    lines, (_, crc) = read_count(index[:HEAD_BYTES]), key_of(custom_id)
    while lines:
        first, count = guess(lines, crc, spread)
        offset, length = keys_at(lines, first, count)
        hits = read_keys(index[offset : offset + length], crc, first=first, lines=lines)
        if hits.is_whole:
            return list(hits.places)
        spread *= 2
    return []


@given(
    st.lists(st.text(max_size=30), max_size=60, unique=True), st.integers(1, 8), st.text(max_size=5)
)
def test_every_id_is_found_and_no_other(ids: list[str], spread: int, other: str) -> None:
    lines = [(2 * place + 1, output(2 * place + 1, each)) for place, each in enumerate(ids)]
    index, text = index_of(lines), b"".join(data for _, data in lines)
    assert read_count(index[:HEAD_BYTES]) == len(ids)
    for place, each in enumerate(ids):
        places = found(index, each, spread)
        assert place in places
        offset, length = records_at(place, 1)
        (record,) = read_records(index[offset : offset + length])
        data = text[record.offset : record.offset + record.length]
        assert (record.line, data) == (lines[place][0], lines[place][1])
        assert custom_id_of(data) == key_of(each)[0]
        assert line_number_of(data) == record.line
    if other not in ids:
        wanted = key_of(other)[0]
        assert all(custom_id_of(lines[place][1]) != wanted for place in found(index, other, spread))


def test_ids_with_one_crc_are_all_candidates() -> None:
    first, second = "plumless", "buckeroo"
    assert crc32(first.encode()) == crc32(second.encode())
    index = index_of([(1, output(1, first)), (2, output(2, "x")), (3, output(3, second))])
    assert found(index, first, 1) == found(index, second, 1) == [0, 2]


def test_an_id_is_read_as_it_stands_however_it_is_escaped() -> None:
    for custom_id in ('"', "\\", '\\"', '"custom_id":"x"', "\u202e", "\n", ""):
        assert custom_id_of(output(1, custom_id)) == key_of(custom_id)[0]
    assert custom_id_of(b'{"id":"a-1"}') == b""


def test_records_tell_where_lines_begin_beyond_four_gigabytes() -> None:
    writer = IndexWriter()
    writer.add(range(1, 6), [b""] * 5)
    writer._lengths[:] = array("I", [2**30] * 5)
    offset, length = records_at(4, 1)
    assert read_records(writer.pack()[offset : offset + length]) == [LinePlace(5, 2**32, 2**30)]


def test_what_is_no_index_is_refused() -> None:
    with pytest.raises(ResultIndexError, match="no head"):
        read_count(b"LTINDEX1")
    with pytest.raises(ResultIndexError, match="no index"):
        read_count(b"x" * HEAD_BYTES)
    with pytest.raises(ResultIndexError, match="whole number"):
        read_records(b"x" * 29)


def test_an_index_tells_where_the_requests_lie_that_the_plan_knows() -> None:
    plan = pack_entries([PlanEntry(7, 700, 70, 1), PlanEntry(2, 200, 20, 1)])
    writer = IndexWriter()
    writer.add((2, 5, 7), [output(line, "a") for line in (2, 5, 7)])
    offset, length = records_at(0, 3)
    records = read_records(writer.pack(plan)[offset : offset + length])
    assert [(each.input_offset, each.input_length) for each in records] == [
        (200, 20),
        (0, 0),
        (700, 70),
    ]
