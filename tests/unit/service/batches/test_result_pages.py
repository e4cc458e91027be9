"""Pages of a result file, with its index and without."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.core.batches.line import output_line_id
from lowtide.core.batches.result_index import SUFFIX
from lowtide.core.files.file import File
from lowtide.ports.blobs import Blobs
from lowtide.service.batches.result_pages import ResultPages

AT = datetime(2026, 1, 1, tzinfo=UTC)


def output(line: int, size: int = 1) -> bytes:
    reported = {
        "id": output_line_id("batch_a", line),
        "custom_id": f"r{line}",
        "response": "x" * size,
    }
    return msgspec.json.encode(reported) + b"\n"


async def stored(blobs: Blobs, lines: list[bytes]) -> File:
    content = b"".join(lines)
    await blobs.put("results/file-out-a-1", content)
    return File(
        id="file-out-a", project_id="p", purpose="batch_output", filename="x", status="uploaded",
        dialect="openai", created_at=AT, bytes=len(content), lines=len(lines),
        sha256=sha256(content).hexdigest(), blob_key="results/file-out-a-1", batch_id="batch_a",
    )  # fmt: skip


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs("file", tmp_path)


async def test_any_page_of_a_file_is_read_and_beyond_its_end_there_is_none(blobs: Blobs) -> None:
    file = await stored(blobs, [output(3 * n) for n in range(250)])
    pages = ResultPages(blobs)
    page = await pages.page(file, 100, 100)
    assert page.total == 250
    assert [(each.place, each.line) for each in page.lines[:2]] == [(100, 300), (101, 303)]
    assert [each.output for each in page.lines] == [output(3 * n) for n in range(100, 200)]
    assert len((await pages.page(file, 240, 100)).lines) == 10
    assert (await pages.page(file, 250, 100)).lines == ()


async def test_an_id_is_found_or_it_is_not(blobs: Blobs) -> None:
    file = await stored(blobs, [output(n) for n in range(1, 5000)])
    pages = ResultPages(blobs)
    for line in (1, 2500, 4999):
        (found,) = (await pages.find(file, f"r{line}")).lines
        assert (found.line, found.output) == (line, output(line))
    assert (await pages.find(file, "r5000")).lines == []


async def test_a_missing_or_damaged_index_is_made_anew_once(blobs: Blobs) -> None:
    file = await stored(blobs, [output(n) for n in range(1, 11)])
    key = file.blob_key + SUFFIX
    await ResultPages(blobs).page(file, 0, 1)
    whole = await blobs.read(key)
    await blobs.delete(key)
    await blobs.put(key, b"damaged, and longer than a head is")
    assert (await ResultPages(blobs).page(file, 9, 1)).lines[0].output == output(10)
    assert await blobs.read(key) == whole


async def test_large_lines_are_cut_and_a_page_of_them_is_shorter(blobs: Blobs) -> None:
    size = limits.PAGE_LINE_BYTES_MAX
    file = await stored(blobs, [output(n, size) for n in range(1, 41)])
    page = await ResultPages(blobs).page(file, 0, 40)
    assert sum(len(each.output) for each in page.lines) <= limits.PAGE_LINES_BYTES_MAX
    assert 1 < len(page.lines) < 40
    assert page.lines[0].is_cut
    assert page.lines[0].size == len(output(1, size))


async def test_lines_before_a_place_of_the_input_are_counted(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INDEX_RECORDS_READ", 2)
    file = await stored(blobs, [output(line) for line in (1, 3, 4, 9, 10)])
    pages = ResultPages(blobs)
    assert await pages.last_line(file) == 10
    for _ in range(2):  # read, and remembered
        assert await pages.lines_before(file, [0, 3, 8, 10]) == [0, 2, 3, 5]
