"""`lowtide run` on tables as people meet it: every format, interruptions, limits of a server."""

import asyncio
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Command, lowtide, names_in, reached, write_lines

from lowtide.tables.formats import format_of
from lowtide.tables.reader import open_table
from lowtide.tables.writers import table_writer
from testkit.scripted_engine import Answer, ScriptedEngine, completion, reply

ROWS = 60
QUICK: Answer = (reply(completion("fine")),)
Engine = partial(ScriptedEngine, models=("m",))
PROMPT = ("--prompt", 'Classify: {{ row["the text"] }}')


def table(rows: int = ROWS) -> pa.Table:
    return pa.table({"id": [f"{n:03}" for n in range(rows)], "the text": ["hello"] * rows})


def write_table(path: Path, content: pa.Table) -> Path:
    with path.open("wb") as stream:
        writer = table_writer(format_of(path.name), stream, content.schema)
        for batch in content.to_batches():
            writer.write(batch)
        writer.close()
    return path


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [row for _, batch in open_table(str(path)).batches() for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("t.csv", "o.parquet"),
        ("t.parquet", "o.jsonl"),
        ("t.jsonl", "o.tsv"),
        ("t.arrow", "o.arrow"),
    ],
)
async def test_the_same_rows_come_back_with_answers_beside_them(
    source: str, output: str, tmp_path: Path
) -> None:
    write_table(tmp_path / source, table(5))
    async with Engine(otherwise=QUICK) as engine:
        arguments = ["run", source, "-o", output, *PROMPT, "--url", engine.url]
        code, out, reported = await lowtide(*arguments, cwd=tmp_path)
        assert code == 0, reported
        sent = json.loads(engine.requests[0].body)
    assert "5 succeeded, none failed" in out
    assert sent["model"] == "m"
    assert sent["messages"] == [{"role": "user", "content": "Classify: hello"}]
    rows = rows_in(tmp_path / output)
    assert [row["id"] for row in rows] == ["000", "001", "002", "003", "004"]
    assert {row["answer"] for row in rows} == {"fine"}
    assert list(rows[0]) == ["id", "the text", "answer", "_error", "_finish_reason", "_tokens"]
    assert names_in(tmp_path) == sorted([source, output])


async def test_a_schema_s_fields_are_columns_and_a_bad_row_is_an_error_in_its_row(
    tmp_path: Path,
) -> None:
    write_table(tmp_path / "t.csv", pa.table({"n": ["1", "0", "x"]}))
    schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (tmp_path / "prompt.txt").write_text("{{ 10 // (n | int(1)) }}")
    async with Engine((reply(completion('{"ok": true}')),), QUICK) as engine:
        code, out, _ = await lowtide(
            "run", "t.csv", "-o", "o.parquet", "--prompt-file", "prompt.txt", "--schema",
            "schema.json", "--window", "1", "--url", engine.url, "--param", "max_tokens=9",
            cwd=tmp_path,
        )  # fmt: skip
        sent = [json.loads(request.body) for request in engine.requests]
    assert code == 1
    assert "1 succeeded, 2 failed" in out
    assert [body["max_tokens"] for body in sent] == [9, 9]
    assert sent[0]["response_format"]["json_schema"]["schema"] == schema
    rows = rows_in(tmp_path / "o.parquet")
    assert sorted(str(row["ok"]) for row in rows) == ["None", "None", "True"]
    assert rows[1]["_error"].startswith("The prompt cannot be made: integer division")
    assert pq.read_schema(tmp_path / "o.parquet").field("ok").type == pa.bool_()


async def test_after_ctrl_c_the_same_command_goes_on_and_runs_no_row_twice(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", table())
    gate = asyncio.Event()
    async with Engine(*[QUICK] * 20, otherwise=(gate, *QUICK)) as engine:
        arguments = ["run", "t.csv", "-o", "o.csv", *PROMPT, "--url", engine.url, "--window", "4"]
        async with await Command.start(*arguments, cwd=tmp_path) as command:
            await reached(engine, 21)
            command.send(signal.SIGINT)
            await command.said("Stopping")
            gate.set()
            code, _, reported = await command.ended()
        assert code == 130
        assert "The same command goes on from there" in reported
        assert names_in(tmp_path) == ["o.csv.lowtide", "t.csv"]

        code, _, reported = await lowtide(*arguments, "--limit", "5", cwd=tmp_path)
        assert code == 2
        assert "--limit was different then" in reported
        code, _, reported = await lowtide(*arguments, cwd=tmp_path)
        assert code == 0
        assert "Going on" in reported
        assert len(engine.requests) == ROWS
    assert [row["id"] for row in rows_in(tmp_path / "o.csv")] == [f"{n:03}" for n in range(ROWS)]
    assert names_in(tmp_path) == ["o.csv", "t.csv"]


async def test_a_dry_run_shows_requests_and_sends_none(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", table())
    async with Engine(otherwise=QUICK) as engine:
        arguments = ["run", "t.csv", "-o", "o.csv", *PROMPT, "--url", engine.url, "--dry-run"]
        code, out, _ = await lowtide(*arguments, "--sample", "9", "--json", cwd=tmp_path)
        assert engine.requests == []
    found = json.loads(out)
    assert code == 0
    assert found["rows"] == found["estimate"]["requests"] == 9
    assert len(found["requests"]) == 3
    assert found["requests"][0]["body"]["messages"][0]["content"] == "Classify: hello"
    assert found["estimate"]["models"][0]["input_tokens"] > 9
    assert names_in(tmp_path) == ["t.csv"]


# ---- which model --------------------------------------------------------------------------------


async def test_a_file_that_names_other_models_is_not_spent(tmp_path: Path) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    write_lines(tmp_path / "b.jsonl", [{"custom_id": "a", "body": body}])
    async with Engine(otherwise=QUICK) as engine:
        arguments = ["run", "b.jsonl", "-o", "o.jsonl", "--url", engine.url]
        code, _, reported = await lowtide(*arguments, cwd=tmp_path)
        assert (code, engine.requests) == (2, [])
        assert "does not list gpt-4o; it lists m." in reported
        assert "--model m" in reported
        code, _, _ = await lowtide(*arguments, "--model", "m", cwd=tmp_path)
        assert code == 0
        assert [json.loads(request.body)["model"] for request in engine.requests] == ["m"]
    assert names_in(tmp_path) == ["b.jsonl", "o.jsonl"]


async def test_a_server_s_limits_split_the_rows_and_a_model_is_asked_whatever_lines_name(
    tmp_path: Path,
) -> None:
    write_table(tmp_path / "t.csv", table(24))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    write_lines(tmp_path / "b.jsonl", [{"custom_id": "a", "body": body}])
    async with Engine(otherwise=QUICK) as engine:
        (tmp_path / "lowtide.toml").write_text(
            "[limits]\nrequests_per_batch = 7\nenqueued_tokens_per_model = 120\n"
            f'[[replica]]\nurl = "{engine.url}"\nmodels = ["m"]\n'
            '[[model]]\nid = "m"\ninput_price = 1000\noutput_price = 1000\n'
        )
        server = await Command.start("serve", "--port", "0", "--json", cwd=tmp_path)
        async with server:
            address = (await server.printed_json())["address"]
            arguments = ["run", "t.csv", "-o", "o.parquet", *PROMPT, "--server", address]
            code, out, reported = await lowtide(*arguments, "--dry-run", "--json", cwd=tmp_path)
            assert code == 0, reported
            estimate = json.loads(out)["estimate"]
            assert (estimate["requests"], len(engine.requests)) == (24, 0)
            code, out, reported = await lowtide(*arguments, "--json", cwd=tmp_path)
            assert code == 0, reported
            arguments = ["run", "b.jsonl", "-o", "o.jsonl", "--server", address, "--model", "m"]
            code, _, reported = await lowtide(*arguments, cwd=tmp_path)
            assert code == 0, reported
    found = json.loads(out)
    assert (found["succeeded"], found["failed"]) == (24, 0)
    assert len(found["batches"]) >= 4
    assert float(found["live_amount"]) == 2 * float(found["amount"]) > 0
    assert [row["id"] for row in rows_in(tmp_path / "o.parquet")] == [f"{n:03}" for n in range(24)]
    assert len(engine.requests) == 25
