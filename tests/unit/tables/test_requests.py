"""Rows into request lines, and lines into parts that fit."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowtide.core.batches.plan import Plan
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import Validator
from lowtide.tables.errors import TableError
from lowtide.tables.prompts import Prompt, RowFault
from lowtide.tables.reader import open_table
from lowtide.tables.requests import (
    CHAT,
    EMBEDDINGS,
    PartBounds,
    RequestTemplate,
    read_index,
    request_line,
    write_part,
)
from lowtide.tables.rows import RowCursor
from lowtide.tables.selection import select_rows

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
COLUMNS = ["text", "id", "image"]
ENDLESS = 1 << 40


def template(prompt: str = "Say {{ text }}", **how: Any) -> RequestTemplate:
    return RequestTemplate("m", Prompt(prompt, COLUMNS, "--prompt"), **how)


def line_of(made: RequestTemplate, folder: Path | None = None, **row: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(request_line(made, {"text": "hi"} | row, 6, folder))
    return line


def test_a_row_becomes_a_line_that_the_server_s_own_validator_takes() -> None:
    system = Prompt("You answer about {{ id }}.", COLUMNS, "--system")
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = template(system=system, schema=schema, id_column="id", params={"max_tokens": 5})
    raw = request_line(made, {"text": "hi", "id": 7}, 6, None)
    assert json.loads(raw) == {
        "custom_id": "7",
        "method": "POST",
        "url": CHAT,
        "body": {
            "model": "m",
            "messages": [
                {"role": "system", "content": "You answer about 7."},
                {"role": "user", "content": "Say hi"},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            },
            "max_tokens": 5,
        },
    }
    validator = Validator(ValidationRules(endpoint=CHAT, dialect="openai", requests_max=1))
    validator.feed(raw)
    assert isinstance(validator.finish(), Plan)


def test_without_an_id_column_the_row_s_number_from_1_is_the_id() -> None:
    assert line_of(template())["custom_id"] == "row-7"


def test_an_embedding_has_an_input() -> None:
    line = line_of(template(endpoint=EMBEDDINGS))
    assert (line["url"], line["body"]) == (EMBEDDINGS, {"model": "m", "input": "Say hi"})


@pytest.mark.parametrize("value", [None, "", "x" * 513])
def test_a_row_without_a_usable_id_has_a_fault(value: str | None) -> None:
    with pytest.raises(RowFault, match="id"):
        line_of(template(id_column="id"), id=value)


# ---- images -------------------------------------------------------------------------------------


def image_of(value: Any, folder: Path | None = None) -> Any:
    return line_of(template(image_column="image"), folder, image=value)["body"]["messages"][0][
        "content"
    ]


@pytest.mark.parametrize("value", ["photo.png", PNG, {"bytes": PNG, "path": "other.png"}])
def test_a_path_or_bytes_become_a_data_url(value: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PNG)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert image_of(value, tmp_path) == [
        {"type": "text", "text": "Say hi"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_an_address_is_passed_on_and_no_image_is_no_fault() -> None:
    assert image_of("https://a.example/x.png")[1]["image_url"] == {"url": "https://a.example/x.png"}
    assert image_of(None) == image_of("") == "Say hi"


def test_a_file_that_is_no_image_never_leaves_this_machine(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password")
    with pytest.raises(RowFault, match="is no PNG"):
        image_of("secret", tmp_path)


@pytest.mark.parametrize(
    ("value", "said"),
    [("gone.png", "No such file"), (3, "no path, URL or bytes"), ("a\0b", "read")],
)
def test_an_image_that_cannot_be_had_is_the_row_s_fault(
    value: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RowFault, match=said):
        image_of(value, tmp_path)


def test_a_path_in_a_bucket_s_table_is_the_row_s_fault() -> None:
    with pytest.raises(RowFault, match="needs URLs"):
        image_of("photo.png", None)


# ---- parts --------------------------------------------------------------------------------------


def parts_of(path: Path, bounds: PartBounds, numbers: range) -> list[tuple[list[str], list[int]]]:
    """By part: the ids of its lines, and the rows of its index that have none."""
    table = open_table(str(path))
    made = RequestTemplate("m", Prompt("{{ 6 // n }}", table.schema.names, "--prompt"))
    cursor = RowCursor(table, made.columns, numbers)
    parts = []
    while True:
        lines, index = io.BytesIO(), io.BytesIO()
        done = write_part(made, cursor, bounds, lines, index)
        if not done.rows:
            return parts
        entries = list(read_index(io.BytesIO(index.getvalue())))
        ids = [json.loads(line)["custom_id"] for line in lines.getvalue().splitlines()]
        assert ids == [entry.custom_id for entry in entries if entry.custom_id]
        assert (done.rows, done.lines) == (len(entries), len(ids))
        assert done.bytes == len(lines.getvalue())
        parts.append((ids, [entry.number for entry in entries if entry.fault]))


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"n": [1, 2, 0, 3, 6]}), tmp_path / "n.parquet")
    return tmp_path / "n.parquet"


def test_rows_are_cut_into_parts_in_their_order_and_a_bad_row_takes_no_line(numbers: Path) -> None:
    parts = parts_of(numbers, PartBounds(2, ENDLESS), range(5))
    assert parts == [(["row-1", "row-2"], []), (["row-4", "row-5"], [2])]


def test_a_part_ends_before_the_line_that_would_pass_the_bytes(numbers: Path) -> None:
    size = len(request_line(template("6"), {}, 0, None))
    parts = parts_of(numbers, PartBounds(100, 2 * size + 1), range(5))
    assert [ids for ids, _ in parts] == [["row-1", "row-2"], ["row-4", "row-5"]]
    alone = parts_of(numbers, PartBounds(100, 1), range(5))
    assert [ids for ids, _ in alone] == [["row-1"], ["row-2"], ["row-4"], ["row-5"]]


@pytest.mark.parametrize("position", [0, 1, 3, 5])
def test_a_cursor_goes_on_at_a_position(numbers: Path, position: int) -> None:
    cursor = RowCursor(open_table(str(numbers)), ["n"], [0, 1, 3, 4, 4][:4], position)
    found = []
    while (row := cursor.next()) is not None:
        found.append((row.number, row.values["n"]))
    assert found == [(0, 1), (1, 2), (3, 3), (4, 6)][position:]


# ---- which rows ---------------------------------------------------------------------------------


def test_limit_takes_the_first_rows_and_sample_the_same_ones_each_time() -> None:
    assert select_rows(10, None, None) == range(10)
    assert select_rows(10, 3, None) == range(3)
    assert select_rows(10, 30, 20) == range(10)
    sample = select_rows(1000, None, 20)
    assert sample == select_rows(1000, None, 20) == sorted(set(sample))
    assert len(sample) == 20
    assert max(select_rows(1000, 50, 20)) < 50
    with pytest.raises(TableError):
        select_rows(10**9, None, 10**8)
