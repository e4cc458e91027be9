"""Cuts blocks of a file into its physical lines, wherever the blocks were cut.

The validator feeds it. It knows line endings (LF, CRLF, none at the end), a byte order mark, line
numbers, offsets and UTF-8, and nothing about JSON. Invariant: it holds at most one partial line,
and that only while the line can still turn out short enough.
"""

from collections.abc import Iterator
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_CR: Final = 0x0D
_BESIDE_LINE_BYTES: Final = len(_BOM) + 1  # a BOM before and a CR after do not count as the line


CutLine = tuple[int, int, memoryview | None, bool]
"""A line that is not empty: number, offset, its bytes without line ending and BOM (None when too
long), and whether they are UTF-8. A bare tuple, because this is the innermost loop."""


class LineSplitter:
    """Exhaust what `cut` returns before the next call. `lines` counts every physical line."""

    def __init__(self, line_bytes_max: int) -> None:
        self.lines = 0
        self.data = b""
        """What the lines of the last `cut` are views of, and where in the file it begins."""
        self.data_offset = 0
        self._line_bytes_max = line_bytes_max
        self._held = bytearray()  # the start of a line whose end has not come yet
        self._offset = 0  # in the file, of the first held byte
        self._skipping = False  # inside a line that is too long to hold
        self._open = False  # the last byte was no line ending

    @property
    def held_bytes(self) -> int:
        """The bytes of the line whose end has not come yet."""
        return len(self._held)

    def cut(self, block: bytes) -> Iterator[CutLine]:
        """Yields the lines that end in this block."""
        self._open = not block.endswith(b"\n")
        if self._skipping:
            end = block.find(b"\n") + 1
            if not end:
                self._offset += len(block)
                return
            yield self._end_skipping(end)
            block = block[end:]
        if b"\n" not in block:
            self._hold(block)
            return
        data = b"".join((self._held, block)) if self._held else block
        end = data.rfind(b"\n") + 1
        yield from self._whole_lines(data, end)
        self._offset += end
        self._held.clear()
        self._hold(data[end:])

    def finish(self) -> Iterator[CutLine]:
        """Yields the last line if it lacks its ending."""
        if self._open:
            yield from self.cut(b"\n")

    def _whole_lines(self, data: bytes, end: int) -> Iterator[CutLine]:
        """Yields every line of `data[:end]`, which ends with a line ending."""
        view = memoryview(data)
        # One check over the whole block costs a third of a check for each line; only a block that
        # fails is looked at line by line.
        sound = data.isascii() or _is_utf8(view[:end])
        start = len(_BOM) if not self._offset and data.startswith(_BOM) else 0
        self.data, self.data_offset = data, self._offset
        number, base, longest, index = self.lines, self._offset, self._line_bytes_max, data.index
        while start < end:
            stop = following = index(b"\n", start)
            number += 1
            if stop > start:
                if data[stop - 1] == _CR:
                    stop -= 1
                if stop - start > longest:
                    yield number, base + start, None, True
                elif stop > start:
                    raw = view[start:stop]
                    yield number, base + start, raw, sound or _is_utf8(raw)
            start = following + 1
        self.lines = number

    def _hold(self, tail: bytes) -> None:
        """Keeps the start of a line, unless it can only turn out too long."""
        self._held += tail
        if len(self._held) > self._line_bytes_max + _BESIDE_LINE_BYTES:
            self._skipping = True
            self._offset += len(self._held)
            self._held.clear()

    def _end_skipping(self, end: int) -> CutLine:
        self._skipping = False
        self._offset += end
        self.lines += 1
        return self.lines, self._offset, None, True


def _is_utf8(view: memoryview) -> bool:
    try:
        str(view, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
