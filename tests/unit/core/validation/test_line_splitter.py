"""core/validation/line_splitter.py: physical lines out of blocks."""

from lowtide.core.validation.line_splitter import LineSplitter


def cut(*blocks: bytes, line_bytes_max: int = 100) -> list[tuple[int, int, bytes | None, bool]]:
    cutter = LineSplitter(line_bytes_max)
    found = [line for block in blocks if block for line in cutter.cut(block)]
    found += cutter.finish()
    return [
        (n, offset, None if raw is None else bytes(raw), utf8) for n, offset, raw, utf8 in found
    ]


def test_numbers_and_offsets_count_blank_lines_and_both_line_endings() -> None:
    assert cut(b"a\r\n\nbc\n\r\nd") == [
        (1, 0, b"a", True),
        (3, 4, b"bc", True),
        (5, 9, b"d", True),
    ]


def test_a_byte_order_mark_is_passed_over_even_when_split() -> None:
    assert cut(b"\xef", b"\xbb\xbfa", b"\nb") == [(1, 3, b"a", True), (2, 5, b"b", True)]


def test_only_the_first_line_may_start_with_a_byte_order_mark() -> None:
    assert cut(b"a\n\xef\xbb\xbfb\n")[1] == (2, 2, b"\xef\xbb\xbfb", True)


def test_invalid_utf8_marks_only_its_own_line() -> None:
    assert [utf8 for *_, utf8 in cut(b"a\n\xc3\n\xc3\xa4\n")] == [True, False, True]


def test_a_character_split_between_blocks_is_whole_again() -> None:
    assert cut(b"\xc3", b"\xa4\n") == [(1, 0, b"\xc3\xa4", True)]


def test_a_long_line_is_dropped_not_held() -> None:
    cutter = LineSplitter(10)
    for _ in range(50):
        assert list(cutter.cut(b"x" * 10)) == []
        assert len(cutter._held) <= 14
    assert [line[0] for line in cutter.cut(b"\nok\n")] == [1, 2]
    assert cutter.lines == 2


def test_the_line_ending_does_not_count_against_the_length_limit() -> None:
    lines = cut(b"\xef\xbb\xbfxx\r\nyyy\r\nzz\n", line_bytes_max=2)
    assert [raw for _, _, raw, _ in lines] == [b"xx", None, b"zz"]


def test_offsets_go_on_after_a_skipped_line() -> None:
    assert cut(b"x" * 30, b"x" * 30, b"xx\n", b"a\n", line_bytes_max=5)[1] == (2, 63, b"a", True)


def test_a_last_line_without_ending_counts() -> None:
    cutter = LineSplitter(10)
    assert list(cutter.cut(b"a\n\nb")) != []
    assert [bytes(raw or b"") for _, _, raw, _ in cutter.finish()] == [b"b"]
    assert cutter.lines == 3
