"""Sets of lines come back as they went in, and are small."""

from random import Random

import msgspec
import numpy as np
import pytest

from lowtide import limits
from lowtide.core.batches.failures import OTHER
from lowtide.core.batches.line_sets import (
    FailedLineCollector,
    FailedLines,
    LineSetError,
    combined,
    pack_lines,
    unpack_failed,
    unpack_lines,
)


def failed(**lines_by_code: list[int]) -> FailedLines:
    collector = FailedLineCollector()
    for code, lines in lines_by_code.items():
        for line in lines:
            collector.add(line, code)
    return collector.collected()


def codes_of(lines: FailedLines) -> dict[int, str]:
    return {
        line: lines.names[code]
        for line, code in zip(lines.lines.tolist(), lines.codes.tolist(), strict=True)
    }


@pytest.mark.parametrize("lines", [[], [1], [1, 2, 3], [7, 4_000_000_000], [5, 6, 900]])
def test_lines_come_back_as_they_went_in(lines: list[int]) -> None:
    assert unpack_lines(pack_lines(np.array(lines, np.uint32))).tolist() == lines


def test_a_million_lines_take_kilobytes_and_a_random_half_of_them_little_more_than_a_bit_each() -> (
    None
):
    every = np.arange(1, 1_000_001, dtype=np.uint32)
    assert len(pack_lines(every)) < 40_000
    half = np.array(sorted(Random(1).sample(range(1, 100_001), 50_000)), np.uint32)
    assert len(pack_lines(half)) < 50_000


def test_failed_lines_keep_their_codes_through_the_bytes() -> None:
    lines = failed(batch_expired=[9, 2], rate_limit=[5])
    assert codes_of(unpack_failed(lines.pack())) == {
        2: "batch_expired",
        5: "rate_limit",
        9: "batch_expired",
    }
    assert lines.counts() == {"batch_expired": 2, "rate_limit": 1}


def test_codes_above_the_bound_become_other() -> None:
    many = {f"code_{n}": [n + 1] for n in range(limits.FAILURE_CODES_MAX + 20)}
    counts = unpack_failed(failed(**many).pack()).counts()
    assert counts[OTHER] == 20
    assert sum(counts.values()) == limits.FAILURE_CODES_MAX + 20


def test_lines_of_one_code_keep_their_groups_until_there_are_too_many() -> None:
    collector = FailedLineCollector()
    for line in range(1, 201):
        collector.add(line, "400", f"group {line}")
    one = unpack_failed(collector.collected().pack())
    assert [one.groups[code] for code in one.codes[:3]] == ["group 1", "group 2", "group 3"]
    assert one.counts() == {"400": 200}
    other = failed(**{f"b{n}": [n + 1001] for n in range(100)})
    both = combined(one, other)
    assert set(both.groups) == {""}, "codes are kept, and groups given up"
    assert both.counts()["400"] == 200
    assert len(both.names) == 101


def test_bytes_without_groups_are_read() -> None:
    lines = failed(a=[1, 2])
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(lines.pack())[:3])
    assert unpack_failed(old).groups == ("",)


def test_the_last_code_of_a_line_counts() -> None:
    first, second = failed(a=[1, 2], b=[3]), failed(c=[2], a=[3])
    assert codes_of(combined(first, second)) == {1: "a", 2: "c", 3: "a"}


def test_many_codes_of_two_sets_are_bounded_together() -> None:
    first = failed(**{f"a{n}": [n + 1] for n in range(200)})
    second = failed(**{f"b{n}": [n + 1001] for n in range(200)})
    both = combined(first, second)
    assert len(both.names) == limits.FAILURE_CODES_MAX + 1
    assert sum(both.counts().values()) == 400


@pytest.mark.parametrize("data", [b"", b"x", b"\x93\x90\xc4\x00\xc4\x00"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LineSetError):
        unpack_failed(data)
    with pytest.raises(LineSetError):
        unpack_lines(data)
