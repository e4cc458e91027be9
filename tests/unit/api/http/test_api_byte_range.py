"""Ranges of RFC 9110: what is read, what is ignored, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.api.http.byte_range import parse_range
from lowtide.core.errors import LowtideError


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-1", (0, 2)),
        ("bytes=2-", (2, 8)),
        ("bytes=9-99", (9, 1)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
        (" bytes= 1-2 ", (1, 2)),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=x-y", None),
        ("", None),
    ],
)
def test_one_range_is_read_and_the_rest_ignored(header: str, found: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == found


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_outside_the_file_is_refused(header: str, size: int) -> None:
    with pytest.raises(LowtideError) as refused:
        parse_range(header, size)
    assert refused.value.code == "range_not_satisfiable"


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 40))
def test_a_range_never_leaves_the_file(size: int, first: int, last: int) -> None:
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            found = parse_range(header, size)
        except LowtideError:
            continue
        if found is not None:
            offset, length = found
            assert 0 <= offset < offset + length <= size
