"""Every format both ways: what is read is what is written, with names and types as they are."""

import datetime
import decimal
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowtide import limits
from lowtide.tables.errors import TableError
from lowtide.tables.formats import Format, format_of
from lowtide.tables.reader import Table, open_table
from lowtide.tables.rows import RowCursor
from lowtide.tables.writers import check_writable, table_writer

FORMATS: tuple[Format, ...] = ("csv", "tsv", "parquet", "jsonl", "arrow")
ODD = ["plain", "two words", "a.b", "größe", 'quo"te', "comma,here", "1st", "self"]


def written(path: Path, table: pa.Table) -> Path:
    with path.open("wb") as stream:
        writer = table_writer(format_of(path.name), stream, table.schema)
        for batch in table.to_batches(max_chunksize=3):
            writer.write(batch)
        writer.close()
    return path


def rows_of(table: Table, **how: Any) -> list[dict[str, Any]]:
    return [row for _, batch in table.batches(**how) for row in batch.to_pylist()]


def texts(names: list[str], rows: int) -> pa.Table:
    return pa.table({name: [f'{name} {n}\nnext, "line"' for n in range(rows)] for name in names})


@pytest.mark.parametrize("kind", FORMATS)
def test_text_under_odd_names_comes_back_as_it_was(kind: Format, tmp_path: Path) -> None:
    table = texts(ODD, 10)
    found = open_table(str(written(tmp_path / f"t.{kind}", table)))
    assert found.schema.names == ODD
    assert found.rows == 10
    assert rows_of(found) == table.to_pylist()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("first", [0, 1, 255, 256, 600, 999, 1000])
def test_rows_are_read_from_any_row_on(kind: Format, first: int, tmp_path: Path) -> None:
    table = pa.table({"n": [str(n) for n in range(1000)]})
    found = open_table(str(written(tmp_path / f"t.{kind}", table)))
    assert rows_of(found, first=first) == table.slice(first).to_pylist()


def test_a_row_group_that_lies_before_the_first_row_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"n": list(range(100))}), path, row_group_size=10)
    assert rows_of(open_table(str(path)), first=95) == [{"n": n} for n in range(95, 100)]


TYPED = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int64()),
        "price": pa.array([1.5, None, 3.0]),
        "good": pa.array([True, False, None]),
        "day": pa.array([datetime.date(2026, 1, 2), None, None]),
        "at": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5)] * 3, pa.timestamp("us")),
        "money": pa.array([decimal.Decimal("1.10")] * 3),
        "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "raw": pa.array([b"\x00\xff", b"", None]),
    }
)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_parquet_and_arrow_keep_their_types(kind: Format, tmp_path: Path) -> None:
    source = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(TYPED, source)
    else:
        with pa.ipc.new_file(source, TYPED.schema) as writer:
            writer.write_table(TYPED)
    found = open_table(str(source))
    assert found.schema.field("kind").type == pa.string()  # what the dictionary stands for
    assert found.schema.field("money").type == TYPED.schema.field("money").type
    assert rows_of(found) == TYPED.to_pylist()


def test_an_arrow_stream_is_read_like_a_file(tmp_path: Path) -> None:
    source = tmp_path / "t.arrow"
    with pa.ipc.new_stream(source, TYPED.schema) as writer:
        writer.write_table(TYPED)
    assert rows_of(open_table(str(source))) == TYPED.to_pylist()


def test_csv_shows_types_as_text_and_nested_values_as_json(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", TYPED.drop_columns(["raw", "kind"]))
    assert path.read_text().splitlines() == [
        "id,price,good,day,at,money,tags",
        '1,1.5,true,2026-01-02,2026-01-02T03:04:05,1.10,"[""a"",""b""]"',
        "2,,false,,2026-01-02T03:04:05,1.10,[]",
        ",3.0,,,2026-01-02T03:04:05,1.10,",
    ]


def test_bytes_cannot_go_to_csv_and_that_is_said_before_anything_runs() -> None:
    with pytest.raises(TableError, match="bytes in the column raw"):
        check_writable("csv", TYPED.schema)
    check_writable("parquet", TYPED.schema)


NANOSECOND = pa.table(
    {
        "at": pa.array([1, 2_000], pa.timestamp("ns")),
        "whole": pa.array([1_000, 2_000], pa.timestamp("ns")),
        "zoned": pa.array([1_000, None], pa.timestamp("ns", "UTC")),
        "clock": pa.array([1, 2], pa.time64("ns")),
        "took": pa.array([1_500, 2_000], pa.duration("ns")),
        "deep": pa.array([{"at": [1]}, None], pa.struct([("at", pa.list_(pa.timestamp("ns")))])),
    }
)


def test_nanoseconds_are_written_as_text_where_python_cannot_hold_them(tmp_path: Path) -> None:
    written(tmp_path / "t.jsonl", NANOSECOND)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert rows[0]["at"] == "1970-01-01 00:00:00.000000001"
    assert rows[0]["whole"] == "1970-01-01T00:00:00.000001"
    assert rows[0]["zoned"] == "1970-01-01T00:00:00.000001Z"
    assert rows[0]["clock"] == "00:00:00.000000001"
    assert rows[0]["deep"] == {"at": ["1970-01-01T00:00:00"]}
    text = written(tmp_path / "t.csv", NANOSECOND).read_text()
    assert text.splitlines()[1].startswith("1970-01-01 00:00:00.000000001,1970-01-01T00:00:00.0000")


def test_a_template_meets_times_that_python_can_hold(tmp_path: Path) -> None:
    pq.write_table(NANOSECOND, tmp_path / "t.parquet")
    table = open_table(str(tmp_path / "t.parquet"))
    row = RowCursor(table, table.schema.names, range(2)).next()
    assert row is not None
    assert row.values["at"] == datetime.datetime(1970, 1, 1)
    assert row.values["deep"] == {"at": [datetime.datetime(1970, 1, 1)]}


# ---- CSV ----------------------------------------------------------------------------------------


def test_an_id_with_zeros_stays_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,n\n007,1e3\n")
    assert rows_of(open_table(str(tmp_path / "t.csv"))) == [{"id": "007", "n": "1e3"}]


def test_types_are_given_by_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,n,day,ok\n007,7,2026-01-02,true\n008,,,false\n")
    types = {"n": "int", "day": "date", "ok": "bool"}
    assert rows_of(open_table(str(tmp_path / "t.csv"), types)) == [
        {"id": "007", "n": 7, "day": datetime.date(2026, 1, 2), "ok": True},
        {"id": "008", "n": None, "day": None, "ok": False},
    ]


@pytest.mark.parametrize(
    ("text", "types", "said"),
    [
        ("a,b\n1\n", {}, "row 1: 1 fields where the first line names 2"),
        ("a,a\n1,2\n", {}, "names a column twice: a"),
        ("", {}, "is empty"),
        ('a\n"1\n', {}, "unexpected end of data"),
        ("a\nx\n", {"a": "int"}, "row 1: 'x' in the column a is no int"),
        ("a\nx\n", {"b": "int"}, "--types names b"),
    ],
)
def test_a_csv_that_cannot_be_read_is_named_with_its_row(
    text: str, types: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=said):
        open_table(str(tmp_path / "t.csv"), types)


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a\nfine\ncaf\xe9\n")
    with pytest.raises(TableError, match="not UTF-8") as caught:
        open_table(str(tmp_path / "t.csv"))
    assert "iconv" in (caught.value.hint or "")


def test_a_byte_order_mark_and_an_unnamed_index_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeff,b\r\n0,x\r\n\r\n".encode())
    assert rows_of(open_table(str(tmp_path / "t.csv"))) == [{"column_1": "0", "b": "x"}]


def test_types_are_not_for_parquet(tmp_path: Path) -> None:
    pq.write_table(TYPED, tmp_path / "t.parquet")
    with pytest.raises(TableError, match="has types of its own"):
        open_table(str(tmp_path / "t.parquet"), {"id": "int"})


# ---- JSONL --------------------------------------------------------------------------------------


def test_jsonl_columns_have_the_types_that_their_values_agree_on(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"id": 1, "price": 10, "deep": {"a": [1]}, "mixed": "7"}\n\n'
        '{"id": 2, "price": 9.5, "mixed": 7, "late": true}\n'
        '{"id": null, "big": 18446744073709551616}\n'
    )
    found = open_table(str(tmp_path / "t.jsonl"))
    assert [str(field.type) for field in found.schema] == [
        "int64", "double", "string", "string", "bool", "string",
    ]  # fmt: skip
    assert rows_of(found)[0] == {
        "id": 1, "price": 10.0, "deep": '{"a": [1]}', "mixed": '"7"', "late": None, "big": None,
    }  # fmt: skip


def test_jsonl_to_jsonl_keeps_nested_and_mixed_values(tmp_path: Path) -> None:
    lines = '{"deep":{"a":[1,null]},"mixed":"7"}\n{"deep":null,"mixed":7}\n'
    (tmp_path / "t.jsonl").write_text(lines)
    table = open_table(str(tmp_path / "t.jsonl"))
    batches = [batch for _, batch in table.batches()]
    written(tmp_path / "out.jsonl", pa.Table.from_batches(batches, table.schema))
    assert (tmp_path / "out.jsonl").read_text() == lines


@pytest.mark.parametrize("line", ["[1]", "{", "1", '{"a": NaN}'])
def test_a_line_that_is_no_object_is_named_with_its_row(line: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(TableError, match="row 2: it is no JSON object"):
        open_table(str(tmp_path / "t.jsonl"))


# ---- several files ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "data").mkdir()
    for name, rows in (("b.csv", "3\n"), ("a.csv", "1\n2\n"), (".hidden.csv", "9\n")):
        (tmp_path / "data" / name).write_text("n\n" + rows)
    (tmp_path / "data" / "readme.txt").write_text("no table")
    yield tmp_path / "data"


@pytest.mark.parametrize("ending", ["", "/*.csv", "/?.csv"])
def test_a_folder_or_a_glob_is_one_table_in_order_of_names(folder: Path, ending: str) -> None:
    table = open_table(str(folder) + ending)
    assert [row["n"] for row in rows_of(table)] == ["1", "2", "3"]
    assert [row["n"] for row in rows_of(table, first=2)] == ["3"]


def test_files_of_several_kinds_are_no_table(folder: Path) -> None:
    (folder / "c.jsonl").write_text('{"n": 1}\n')
    with pytest.raises(TableError, match=r"several kinds \(csv, jsonl\)"):
        open_table(str(folder))


def test_files_with_other_columns_are_refused_by_name(folder: Path) -> None:
    (folder / "c.csv").write_text("n,m\n1,2\n")
    with pytest.raises(TableError, match=r"c\.csv do not have the same columns: only one has m"):
        open_table(str(folder))


def test_types_of_several_parquet_files_are_brought_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": pa.array([2.5])}), tmp_path / "b.parquet")
    assert rows_of(open_table(str(tmp_path))) == [{"n": 1.0}, {"n": 2.5}]
    pq.write_table(pa.table({"n": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(TableError, match="the column n is string"):
        open_table(str(tmp_path))


@pytest.mark.parametrize("name", ["gone.csv", "none/*.csv", "t.xlsx"])
def test_what_is_no_table_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_text("?")
    with pytest.raises(TableError):
        open_table(str(tmp_path / name))


def test_a_damaged_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    for kind in ("parquet", "arrow"):
        (tmp_path / f"t.{kind}").write_bytes(b"PAR1 nothing of the kind")
        with pytest.raises(TableError, match="cannot be read"):
            open_table(str(tmp_path / f"t.{kind}"))


def test_reading_gives_small_batches_whatever_the_file_s_own(tmp_path: Path) -> None:
    for kind in FORMATS:
        path = tmp_path / f"t.{kind}"
        table = pa.table({"n": ["x"] * 2000})
        with path.open("wb") as stream:
            writer = table_writer(kind, stream, table.schema)
            writer.write(table.to_batches()[0])
            writer.close()
        sizes = [batch.num_rows for _, batch in open_table(str(path)).batches()]
        assert max(sizes) == limits.TABLE_BATCH_ROWS, kind
