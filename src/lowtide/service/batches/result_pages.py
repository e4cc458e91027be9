"""Pages of a finished result file: any hundred lines of a million, and any `custom_id`.

Called by the routes for lines of a batch. Reads ranges of the index that lies beside the file
(core/batches/result_index.py) and then only the lines that are shown. An index that is missing, for
it was lost or the file is older, is made anew from the file, once for all who wait for it.
Invariant: what a page holds in memory is bounded by `PAGE_LINES_BYTES_MAX` and one line.
"""

from collections.abc import Sequence

import msgspec

from lowtide import limits
from lowtide.core.batches.result_index import (
    HEAD_BYTES,
    SUFFIX,
    IndexWriter,
    LinePlace,
    ResultIndexError,
    custom_id_of,
    guess,
    key_of,
    keys_at,
    line_number_of,
    lines_before,
    read_count,
    read_keys,
    read_records,
    records_at,
)
from lowtide.core.files.file import File
from lowtide.ports.blobs import BlobExists, BlobNotFound, Blobs
from lowtide.service.batches.whole_lines import whole_lines
from lowtide.service.single_flight import SingleFlight


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a result file. `place` counts from 0 in the file, `line` from 1 in the input.

    `size` in bytes; `output`: the line itself, its first `PAGE_LINE_BYTES_MAX` bytes at most.
    `request`: the line of the input, in the same bound; None where it is not known or gone.
    """

    place: int
    line: int
    size: int
    output: bytes
    request: bytes | None = None

    @property
    def is_cut(self) -> bool:
        """Whether `output` is not the whole line."""
        return len(self.output) < self.size


class ResultPage(msgspec.Struct, frozen=True):
    """Lines in the order of the file, and how many the file has."""

    lines: Sequence[ResultLine]
    total: int


class ResultPages:
    """One instance per process."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._making: SingleFlight[None] = SingleFlight()
        self._before: dict[tuple[str, int, int], Sequence[int]] = {}

    async def page(
        self, file: File, first: int, count: int, input_key: str | None = None
    ) -> ResultPage:
        """Up to `count` lines from the place `first` on; fewer where they are large. `input_key`:
        the blob of the input; None: its lines are not asked for.

        Raises BlobError.
        """
        total = await self._count(file)
        count = max(0, min(count, total - first))
        if not count:
            return ResultPage((), total)
        data = await self._blobs.read(_index_of(file), *records_at(first, count))
        places = list(enumerate(read_records(data), first))
        return ResultPage(await self._read(file, _bounded(places), input_key), total)

    async def find(self, file: File, custom_id: str, input_key: str | None = None) -> ResultPage:
        """The line with that id, if the file has it. Raises BlobError."""
        total = await self._count(file)
        text, crc = key_of(custom_id)
        candidates = await self._candidates(file, total, crc)
        lines = await self._read(file, candidates, input_key)
        return ResultPage([each for each in lines if custom_id_of(each.output) == text], total)

    async def last_line(self, file: File) -> int:
        """The line of the input that the file's last line answers; 0 where it has none. Raises
        BlobError.
        """
        if not (total := await self._count(file)):
            return 0
        data = await self._blobs.read(_index_of(file), *records_at(total - 1, 1))
        return _one(data).line

    async def lines_before(self, file: File, places: Sequence[int]) -> Sequence[int]:
        """How many lines of the file answer one of the first `place` lines of the input, for each
        place. Raises BlobError.
        """
        key = file.blob_key, len(places), places[-1] if places else 0
        if (known := self._before.get(key)) is not None:
            return known
        total = await self._count(file)
        before = [0] * len(places)
        for first in range(0, total, limits.INDEX_RECORDS_READ):
            count = min(limits.INDEX_RECORDS_READ, total - first)
            data = await self._blobs.read(_index_of(file), *records_at(first, count))
            counted = lines_before(data, places)
            before = [sum(both) for both in zip(before, map(int, counted), strict=True)]
        if len(self._before) >= limits.LINE_STRIPS_KEPT:
            del self._before[next(iter(self._before))]
        self._before[key] = before
        return before

    async def _candidates(
        self, file: File, total: int, crc: int
    ) -> Sequence[tuple[int, LinePlace]]:
        """Lines whose ids have the CRC: nearly always one or none."""
        spread = limits.INDEX_KEYS_READ
        while total:
            first, count = guess(total, crc, spread)
            data = await self._blobs.read(_index_of(file), *keys_at(total, first, count))
            hits = read_keys(data, crc, first=first, lines=total)
            if hits.is_whole:
                ranges = [records_at(place, 1) for place in hits.places]
                records = await self._blobs.read_ranges(_index_of(file), ranges)
                return list(zip(hits.places, map(_one, records), strict=True))
            spread *= 8
        return ()

    async def _count(self, file: File) -> int:
        """Lines of the file, by its index, which is there afterwards."""
        try:
            return read_count(await self._blobs.read(_index_of(file), 0, HEAD_BYTES))
        except (BlobNotFound, ResultIndexError):
            await self._making.get(file.blob_key, lambda: self._make(file))
            return file.lines

    async def _make(self, file: File) -> None:
        writer = IndexWriter()
        async for line in whole_lines(self._blobs.stream(file.blob_key)):
            writer.add([line_number_of(line)], [line])
        await self._blobs.delete(_index_of(file))  # what is there is no index
        try:
            await self._blobs.put(_index_of(file), writer.pack())
        except BlobExists:
            return  # another process was faster

    async def _read(
        self, file: File, places: Sequence[tuple[int, LinePlace]], input_key: str | None
    ) -> list[ResultLine]:
        longest = limits.PAGE_LINE_BYTES_MAX
        ranges = [(each.offset, min(each.length, longest)) for _, each in places]
        outputs = await self._blobs.read_ranges(file.blob_key, ranges) if ranges else []
        requests = await self._requests([each for _, each in places], input_key)
        return [
            ResultLine(
                place=place, line=each.line, size=each.length, output=output, request=request
            )
            for (place, each), output, request in zip(places, outputs, requests, strict=True)
        ]

    async def _requests(
        self, places: Sequence[LinePlace], input_key: str | None
    ) -> list[bytes | None]:
        known = [each for each in places if each.input_length]
        if input_key is None or not known:
            return [None] * len(places)
        longest = limits.PAGE_LINE_BYTES_MAX
        ranges = [(each.input_offset, min(each.input_length, longest)) for each in known]
        try:
            bodies = iter(await self._blobs.read_ranges(input_key, ranges))
        except BlobNotFound:
            return [None] * len(places)
        return [next(bodies) if each.input_length else None for each in places]


def _index_of(file: File) -> str:
    return file.blob_key + SUFFIX


def _one(record: bytes) -> LinePlace:
    return read_records(record)[0]


def _bounded(places: Sequence[tuple[int, LinePlace]]) -> Sequence[tuple[int, LinePlace]]:
    """The first of them that fit a page, at least one."""
    held = 0
    for number, (_, each) in enumerate(places):
        held += min(each.length, limits.PAGE_LINE_BYTES_MAX)
        if number and held > limits.PAGE_LINES_BYTES_MAX:
            return places[:number]
    return places
