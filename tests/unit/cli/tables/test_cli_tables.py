"""What a run over a table refuses before anything runs, and how it reads its options."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from prompt import Run

from lowtide.cli.run.run_override import override_model
from lowtide.cli.tables.table_options import (
    TableOptions,
    is_table,
    read_params,
    read_schema,
    read_text,
    read_types,
)
from lowtide.cli.terminal.command_errors import CommandError

ASK = ["run", "t.csv", "-o", "o.parquet", "--model", "random"]


@pytest.fixture(autouse=True)
def table(clean_place: None, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,a\n1,b\n")
    (tmp_path / "bad.json").write_text("[]")
    (tmp_path / "schema.json").write_text('{"properties": {"text": {"type": "string"}}}')


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing says what to ask"),
        (["--prompt", "{{ txt }}"], "Did you mean text?"),
        (["--prompt", "{{ text }}", "--system", "{{ who }}"], "--system names {{ who }}"),
        (["--prompt", "a", "--prompt-file", "p"], "exclude each other"),
        (["--prompt", "a", "--image-column", "x"], "--image-column names x"),
        (["--prompt", "a", "--id-column", "x"], "--id-column names x"),
        (["--prompt", "a", "--id-column", "id"], "has 1 in more than one row"),
        (["--prompt", "a", "--answer-column", "id"], "two columns called id"),
        (["--prompt", "a", "--schema", "schema.json"], "two columns called text"),
        (["--prompt", "a", "--schema", "bad.json"], "is no JSON object"),
        (["--prompt", "a", "--schema", "gone.json"], "No such file"),
        (["--prompt", "a", "--types", "id=number"], "is no NAME=TYPE"),
        (["--prompt", "a", "--types", "text=int"], "'a' in the column text is no int"),
        (["--prompt", "a", "--param", "max_tokens"], "is no NAME=VALUE"),
        (["--prompt", "a", "--param", "model=x"], "--model"),
        (["--prompt", "a", "--errors", "e.jsonl"], "the column _error"),
        (["--prompt", "a", "--endpoint", "/v1/responses"], "/v1/embeddings"),
        (["--prompt", "a", "--endpoint", "/v1/embeddings", "--system", "b"], "no system prompt"),
        (["--prompt", "a", "-o", "o.xlsx"], "its ending names no kind of table"),
        (["--prompt", "a", "-o", "-"], "Give files instead of -"),
        (["--prompt", "a", "-o", "t.csv"], "is the table itself"),
    ],
)
def test_what_cannot_run_is_said_before_anything_runs(
    options: list[str], said: str, run_main: Run, tmp_path: Path
) -> None:
    ended = run_main(*ASK, *options)
    assert ended.code == 2
    assert said in ended.err
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["bad.json", "schema.json", "t.csv"]


def test_without_the_extra_a_sentence_says_what_to_install(
    run_main: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = run_main(*ASK, "--prompt", "a")
    assert ended.code == 2
    assert "Tables need the extra `tables` (pyarrow is not installed)." in ended.err
    assert "pip install 'lowtide[tables]'" in ended.err


@pytest.mark.parametrize(
    ("line", "is_row"), [('{"text": "a"}', True), ('{"custom_id": "a"}', False), ("[1]", False)]
)
def test_rows_that_were_given_as_requests_are_told_how_to_be_asked_about(
    line: str, is_row: bool, run_main: Run, tmp_path: Path
) -> None:
    (tmp_path / "b.jsonl").write_text(line + "\n")
    ended = run_main("run", "b.jsonl", "-o", "o.jsonl", "--model", "random")
    assert ended.code == 3
    assert ("--prompt" in ended.err) == is_row


def test_which_runs_are_over_tables() -> None:
    plain, asked = TableOptions(), TableOptions(prompt="a")
    assert not is_table("b.jsonl", plain)
    assert not is_table("-", plain)
    assert is_table("b.jsonl", asked)
    for source in ("t.csv", "T.Parquet", "s3://bucket/t", "gs://bucket/*.jsonl"):
        assert is_table(source, plain), source


def test_options_are_read_as_they_are_meant(tmp_path: Path) -> None:
    assert read_types(" a = int, b=c=date ") == {"a": "int", "b=c": "date"}
    assert read_types(None) == {}
    params = ("max_tokens=5", 'stop=["a"]', "user=ann", 'note="7"')
    assert read_params(params) == {"max_tokens": 5, "stop": ["a"], "user": "ann", "note": "7"}
    (tmp_path / "p.txt").write_text("{{ größe }}")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    assert read_text(None, tmp_path / "p.txt", "--prompt") == (
        "{{ größe }}", f"--prompt-file {tmp_path / 'p.txt'}",
    )  # fmt: skip
    assert read_text(None, None, "--system") is None
    with pytest.raises(CommandError, match="no UTF-8"):
        read_text(None, tmp_path / "latin.txt", "--prompt")
    assert read_schema(None) is None


# ---- one model for all lines --------------------------------------------------------------------


def test_every_line_gets_the_model_and_keeps_all_else(tmp_path: Path) -> None:
    lines: list[Any] = [
        {"custom_id": "a", "body": {"model": "x", "n": 12345678901234567890, "u": "é"}},
        {"custom_id": "b", "method": "POST", "url": "/v1/x", "body": {"messages": []}},
    ]
    given, copy = tmp_path / "b.jsonl", tmp_path / "copy.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines) + '\n{"no": 1}\nnot json\nlast'
    given.write_bytes(b"\xef\xbb\xbf" + text.encode())
    override_model(given, copy, 'm"2')
    found = copy.read_text().splitlines()
    assert [json.loads(line) for line in found[:2]] == [
        {**line, "body": line["body"] | {"model": 'm"2'}} for line in lines
    ]
    assert found[2:] == ["", '{"no": 1}', "not json", "last"]
