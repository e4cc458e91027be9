"""Which file names are tables: those that `lowtide run` reads as tables, except lines of JSON."""

import pytest

from lowtide.core.files.table_name import TABLE_ENDINGS, is_table_name
from lowtide.tables.formats import SUFFIXES


def test_tables_have_the_endings_that_can_be_read_except_those_of_json() -> None:
    assert set(TABLE_ENDINGS) == {each for each, kind in SUFFIXES.items() if kind != "jsonl"}


@pytest.mark.parametrize(
    ("name", "is_table"),
    [("a.csv", True), ("A B.Parquet", True), ("a.jsonl", False), ("a.ndjson", False), ("", False)],
)
def test_a_name_is_judged_by_its_ending(name: str, is_table: bool) -> None:
    assert is_table_name(name) == is_table
