"""`core.validation.duplicate_ids`: every repeated id is found, none other, whatever the
fingerprints do."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.validation.duplicate_ids import CustomIds


def repeated(custom_ids: list[str], block: int = 3, fingerprint: object = hash) -> list[int]:
    """The lines found, when line n has the nth id, counted from 1, handed over in blocks."""
    assert callable(fingerprint)
    ids = CustomIds(fingerprint)
    for start in range(0, len(custom_ids), block):
        part = custom_ids[start : start + block]
        ids.add(part, range(start + 1, start + 1 + len(part)))
    found: list[int] = ids.repeated().tolist()
    return found


def second_uses(custom_ids: list[str]) -> list[int]:
    """The same, as plain as it can be said."""
    seen: set[str] = set()
    return [n for n, one in enumerate(custom_ids, 1) if one in seen or seen.add(one)]  # type: ignore[func-returns-value]


def test_an_id_is_repeated_from_its_second_use_on() -> None:
    assert repeated(["a", "b", "a", "c", "b", "a"]) == [3, 5, 6]


def test_no_ids_repeat_nothing() -> None:
    assert repeated([]) == []


def test_line_numbers_are_those_given() -> None:
    ids = CustomIds()
    ids.add(["a", "b"], [7, 9])
    ids.add(["b"], [4_000_000_000])
    assert ids.repeated().tolist() == [4_000_000_000]


@pytest.mark.parametrize("fingerprint", [lambda _: 0, lambda text: len(text) % 2, hash])
@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 7))
def test_a_fingerprint_shared_by_chance_makes_no_duplicate(
    fingerprint: Callable[[str], int], custom_ids: list[str], block: int
) -> None:
    assert repeated(custom_ids, block, fingerprint) == second_uses(custom_ids)


def test_long_ids_are_told_apart_by_their_last_character() -> None:
    long = "é" * limits.CUSTOM_ID_BYTES_KEPT
    assert repeated([long + "x", long + "y", long + "x", long]) == [3]


def test_an_id_that_is_nearly_too_long_is_kept_as_it_is() -> None:
    longest = "x" * limits.CUSTOM_ID_BYTES_KEPT
    assert repeated([longest, longest + "x", longest, longest + "x"], block=1) == [3, 4]


def test_an_id_costs_its_bytes_and_little_more_however_long_it_is() -> None:
    count, chars = 50_000, limits.CUSTOM_ID_CHARS_MAX
    tracemalloc.start()
    try:
        ids = CustomIds()
        for start in range(0, count, 1_000):
            lines = range(start, start + 1_000)
            ids.add([f"{n:>{chars}}" for n in lines], lines)
        kept, _ = tracemalloc.get_traced_memory()
        assert len(ids.repeated()) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / count < 64
    assert peak / count < 96
