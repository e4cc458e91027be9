"""`lowtide.map`: the same kind out, errors by row, runs that are gone on with."""

import asyncio
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow as pa
import pytest
from batch_server import ADDRESS, BatchServer
from pydantic import BaseModel, Field, field_validator

import lowtide
from lowtide import limits
from lowtide.client.kept_runs import forget_old_runs, kept_run
from lowtide.client.stopping import ThreadStop

ROWS = [{"id": "007", "text": "one"}, {"id": "8", "text": "bad"}, {"id": "9", "text": None}]
PROMPT = "Say: {{ text }}"
ADDED = ["answer", "_error", "_finish_reason", "_tokens"]


class Review(BaseModel):
    label: str
    stars: int = Field(ge=1)

    @field_validator("label")
    @classmethod
    def known(cls, label: str) -> str:
        return {"good": "good", "poor": "poor"}[label]  # a KeyError is no ValidationError


def ask(rows: Any, **arguments: Any) -> Any:
    given = {"prompt": PROMPT, "server": ADDRESS, "model": "m", "progress": False} | arguments
    return lowtide.map(rows, **given)


def runs(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "state/lowtide/runs").glob("*"))


# ---- kinds ----


def test_a_list_of_dicts_comes_back_with_answers_and_an_error_where_there_is_none(
    server: BatchServer, tmp_path: Path
) -> None:
    before = [dict(row) for row in ROWS]
    found = ask(ROWS, params={"max_tokens": 9}, system="Be kind to {{ id }}.")
    assert [row["answer"] for row in found] == ["re: Say: one", None, "re: Say: "]
    assert [row["_error"] for row in found] == [None, "refused: no", None]
    assert [row["id"] for row in found] == ["007", "8", "9"]
    assert list(found[0]) == ["id", "text", *ADDED]
    assert before == ROWS
    assert server.asked[0]["body"] == {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "system", "content": "Be kind to 007."},
            {"role": "user", "content": "Say: one"},
        ],
    }
    assert runs(tmp_path) == []


def test_any_iterable_of_dicts_will_do_and_keys_may_be_missing(server: BatchServer) -> None:
    found = ask(row for row in ({"text": "a", "n": 1}, {"n": 2}, {"text": "a", "n": 1}))
    assert [row["answer"] for row in found] == ["re: Say: a", "re: Say: ", "re: Say: a"]
    assert len(server.asked) == 3  # rows that are alike are rows all the same


def test_an_arrow_table_comes_back_as_one_and_a_record_batch_too(server: BatchServer) -> None:
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata({"kept": "yes"})
    found = ask(table)
    assert isinstance(found, pa.Table)
    assert found.column_names == ["id", "text", *ADDED]
    assert found.schema.field("_tokens").type == pa.int64()
    assert found.schema.metadata == {b"kept": b"yes"}
    batch = ask(table.to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    assert batch.to_pylist() == found.to_pylist()


def test_a_pandas_frame_keeps_its_index_and_missing_values_are_empty(server: BatchServer) -> None:
    frame = pandas.DataFrame(ROWS, index=list("xyz"))
    frame["n"] = [1, 2, 3]
    found = ask(frame, prompt="Say: {{ text }}{{ n }}")
    assert list(found.index) == ["x", "y", "z"]
    assert list(found.columns) == ["id", "text", "n", *ADDED]
    assert found["answer"].tolist()[::2] == ["re: Say: one1", "re: Say: 3"]
    assert found["_error"].isna().tolist() == [True, False, True]
    assert str(found["_tokens"].dtype) == "Int64"
    assert list(frame.columns) == ["id", "text", "n"]
    assert list(ask(frame.iloc[:0]).columns) == list(found.columns)


def test_a_polars_frame_comes_back_as_one(server: BatchServer) -> None:
    frame = polars.DataFrame(ROWS)
    found = ask(frame)
    assert found.columns == ["id", "text", *ADDED]
    assert found["answer"].to_list() == ["re: Say: one", None, "re: Say: "]
    assert ask(frame.head(0)).columns == found.columns
    with pytest.raises(TypeError, match=re.escape("rows.collect()")):
        ask(frame.lazy())


def test_a_data_set_of_hugging_face_comes_back_as_one(server: BatchServer) -> None:
    import datasets  # here: it takes a second

    dataset = datasets.Dataset.from_list(ROWS)
    found = ask(dataset.select([2, 0]))
    assert found.column_names == ["id", "text", *ADDED]
    assert found["answer"][:] == ["re: Say: ", "re: Say: one"]
    assert ask(dataset.select([])).column_names == found.column_names
    with pytest.raises(TypeError, match="one of its splits"):
        ask(datasets.DatasetDict({"train": dataset}))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a.csv", "rows is a str; it must be a list of dicts"),
        ({"text": "one"}, "rows is a dict"),
        (7, "rows is a int"),
        (["one"], "Row 1 is a str, not a dict. Name its value"),
        ([{1: "one"}], "the key 1; keys must be text"),
    ],
)
def test_what_has_no_rows_is_refused_in_words(rows: Any, words: str, server: BatchServer) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        ask(rows)
    assert server.files == {}


@pytest.mark.parametrize("rows", [[], pa.table({"id": ["1"], "text": ["a"]}).slice(0, 0)])
def test_a_table_without_rows_gets_its_columns_and_nobody_is_asked(
    rows: Any, server: BatchServer
) -> None:
    server.is_dead = True
    found = ask(rows, schema=Review if isinstance(rows, pa.Table) else None)
    assert len(found) == 0
    assert isinstance(found, type(rows))
    if isinstance(found, pa.Table):
        assert found.column_names == ["id", "text", "label", "stars", *ADDED[1:]]


# ---- schemas ----


def reviews(prompt: str) -> str:
    word = prompt.rpartition(" ")[2]
    return {
        "one": '{"label": "good", "stars": 3}',
        "zero": '{"label": "good", "stars": 0}',
        "odd": '{"label": "odd", "stars": 1}',
        "list": '{"label": "good", "stars": [1]}',
    }.get(word, "no JSON")


WORDS = [{"text": word} for word in ("one", "zero", "odd", "list", "else")]


def test_with_a_model_of_pydantic_a_list_gets_its_objects(server: BatchServer) -> None:
    server.rule = reviews
    found = ask(WORDS, schema=Review)
    assert [row["answer"] for row in found] == [Review(label="good", stars=3), *[None] * 4]
    errors = [row["_error"] for row in found]
    assert errors[0] is None
    assert errors[1].startswith(
        "The answer does not fit Review: stars: Input should be greater than or equal to 1."
        ' The answer: {"label": "good", "stars": 0}'
    )
    assert errors[2].startswith("The answer does not fit Review: 'odd'")
    assert "stars: Input should be a valid integer" in errors[3]
    assert "Invalid JSON" in errors[4]
    sent = server.asked[0]["body"]["response_format"]["json_schema"]["schema"]
    assert sent == Review.model_json_schema()


def test_in_a_table_the_fields_of_a_model_are_columns_and_its_checks_count(
    server: BatchServer,
) -> None:
    server.rule = reviews
    found = ask(pa.Table.from_pylist(WORDS), schema=Review)
    assert found.column_names == ["text", "label", "stars", *ADDED[1:]]
    assert found["stars"].to_pylist() == [3, None, None, None, None]
    assert found["label"].to_pylist() == ["good", None, None, None, None]
    assert found["_error"].null_count == 1


def test_a_json_schema_gives_a_list_the_values_as_python_has_them(server: BatchServer) -> None:
    server.rule = lambda _: '{"tags": ["a"], "more": {"x": 1}, "any": [1, "b"]}'
    members = {"tags": {"type": "array", "items": {"type": "string"}}, "more": {}, "any": {}}
    (found,) = ask(ROWS[:1], schema={"type": "object", "properties": members})
    assert (found["tags"], found["more"], found["any"]) == (["a"], {"x": 1}, [1, "b"])


def test_a_schema_that_is_none_is_refused(server: BatchServer) -> None:
    with pytest.raises(TypeError, match="not str"):
        ask(ROWS, schema="schema.json")
    with pytest.raises(lowtide.Error, match="names no properties") as caught:
        ask(ROWS, schema={"type": "object"})
    assert caught.value.code == "bad_schema"


# ---- errors ----


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"prompt": "{{ txt }}"}, "unknown_column", "Did you mean text?"),
        ({"prompt": "{{ text"}, "bad_template", "prompt, line 1"),
        ({"prompt": "x", "image_column": "pic"}, "unknown_column", "image_column names pic"),
        ({"answer_column": "id"}, "column_collision", "Give prefix=, for example prefix=result_"),
        ({"params": {"model": "x"}}, "bad_table", "params cannot set model"),
        ({"endpoint": "/v1/images"}, "bad_table", "/v1/chat/completions or /v1/embeddings"),
        ({"url": "http://127.0.0.1:1/v1"}, "usage", "url= and server= exclude each other"),
        ({"server": "http://:1"}, "usage", "server='http://:1' is not an address"),
        ({"model": "n"}, "model_not_found", "The model 'n' is not available. Available: m."),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_runs_and_leaves_nothing(
    arguments: dict[str, Any], code: str, words: str, server: BatchServer, tmp_path: Path
) -> None:
    with pytest.raises(lowtide.Error, match=re.escape(words)) as caught:
        ask(ROWS, **arguments)
    assert caught.value.code == code
    assert "--" not in str(caught.value)
    assert server.asked == []
    assert runs(tmp_path) == []


def test_a_dead_server_is_named_and_the_same_call_works_when_it_is_back(
    server: BatchServer, tmp_path: Path
) -> None:
    server.is_dead = True
    with pytest.raises(lowtide.Error, match=re.escape(f"No server answers at {ADDRESS}")) as error:
        ask(ROWS)
    assert error.value.code == "no_server"
    assert "server=" in (error.value.hint or "")
    assert runs(tmp_path) == []
    server.is_dead = False
    assert len(ask(ROWS)) == 3


def test_nothing_to_answer_and_a_choice_of_models_are_errors_with_a_way_out(
    server: BatchServer,
) -> None:
    with pytest.raises(lowtide.Error, match="model=demo"):
        ask(ROWS, server=None, model=None)
    server.models = ["m", "n"]
    with pytest.raises(lowtide.Error, match=re.escape("Give model=: m, n")):
        ask(ROWS, model=None)
    server.models = ["m"]
    assert len(ask(ROWS, model=None)) == 3


def test_text_that_no_json_can_hold_is_an_error_of_its_row(server: BatchServer) -> None:
    found = ask([{"text": "one"}, {"text": "\ud83d"}, {"text": 10**400}, {"text": {(1,): 2}}])
    assert [row["_error"] is None for row in found] == [True, False, True, True]
    assert "no Unicode" in found[1]["_error"]


def test_on_error_raise_ends_with_all_the_answers_in_the_exception(server: BatchServer) -> None:
    with pytest.raises(lowtide.RowsFailed, match="1 of 3 rows failed") as caught:
        ask(ROWS, on_error="raise")
    assert [row["answer"] for row in caught.value.result] == ["re: Say: one", None, "re: Say: "]
    assert caught.value.failed == 1
    assert len(ask(ROWS[:1], on_error="raise")) == 1
    with pytest.raises(ValueError, match="'keep' or 'raise'"):
        ask(ROWS, on_error="stop")


# ---- going on ----


MANY = [{"text": f"row {n}"} for n in range(40)]


def test_a_call_that_was_interrupted_goes_on_and_says_so(
    server: BatchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.per_beat, server.stop_at = 10, 2
    with pytest.raises(KeyboardInterrupt):
        ask(MANY, progress=True)
    reported = capsys.readouterr().err
    assert f"Stopped after 10 of 40 rows. What was submitted goes on at {ADDRESS}." in reported
    assert "The same call goes on from there." in reported
    assert len(runs(tmp_path)) == 1
    found = ask(MANY, progress=True)
    reported = capsys.readouterr().err
    assert "Going on with an earlier run of this call" in reported
    assert "batch_0 is under way. fresh=True begins anew." in reported
    assert "40 rows: 40 succeeded, none failed." in reported
    assert [row["answer"] for row in found] == [f"re: Say: row {n}" for n in range(40)]
    assert len(server.asked) == 40
    assert runs(tmp_path) == []


def test_results_that_were_not_fetched_are_fetched_by_the_same_call(server: BatchServer) -> None:
    server.per_beat, server.stop_at = 40, 1
    with pytest.raises(KeyboardInterrupt):
        ask(MANY)
    assert server.batches["batch_0"]["status"] == "completed"
    assert len(ask(MANY)) == 40
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    "change",
    [{"prompt": "Now say: {{ text }}"}, {"params": {"seed": 1}}, {"schema": Review}, {}],
)
def test_another_question_is_another_run(change: dict[str, Any], server: BatchServer) -> None:
    server.per_beat, server.stop_at = 1, 2
    with pytest.raises(KeyboardInterrupt):
        ask(MANY)
    server.per_beat = 100
    ask(MANY if change else MANY[1:], **change)
    assert len(server.batches) == 2


def test_columns_that_are_not_asked_about_are_no_part_of_a_run_s_content(
    server: BatchServer,
) -> None:
    server.per_beat, server.stop_at = 1, 2
    with pytest.raises(KeyboardInterrupt):
        ask(MANY)
    server.per_beat = 100
    found = ask([{"new": place, **row} for place, row in enumerate(MANY)])
    assert [row["new"] for row in found] == list(range(40))
    assert len(server.batches) == 1


def test_fresh_throws_an_unfinished_run_away_and_cancels_its_batch(
    server: BatchServer, tmp_path: Path
) -> None:
    server.per_beat, server.stop_at = 1, 2
    with pytest.raises(KeyboardInterrupt):
        ask(MANY)
    server.per_beat = 100
    assert len(ask(MANY, fresh=True)) == 40
    assert server.cancelled == ["batch_0"]
    assert runs(tmp_path) == []


def test_a_call_that_has_ended_runs_anew(server: BatchServer) -> None:
    ask(ROWS)
    ask(ROWS)
    assert len(server.batches) == 2


def test_the_same_call_at_the_same_time_is_refused(server: BatchServer) -> None:
    before = server.pause
    seen: list[str] = []

    def pause(*how: Any) -> None:
        if not seen:
            with pytest.raises(lowtide.Error, match="running at this moment") as caught:
                ask(ROWS)
            seen.append(caught.value.code)
        before(*how)

    server.pause = pause  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadStop, "pause", pause)
        ask(ROWS)
    assert seen == ["run_in_progress"]
    assert len(server.batches) == 1


def test_runs_that_nobody_went_on_with_are_forgotten_in_the_end(tmp_path: Path) -> None:
    for name in ("old", "busy"):
        (tmp_path / f"{name}.lowtide").mkdir()
    made = (tmp_path / "old.lowtide").stat().st_mtime
    with kept_run(tmp_path, "busy"):
        forget_old_runs(tmp_path, made + limits.MAP_RUN_KEPT_S - 10)
        assert len(list(tmp_path.iterdir())) == 2
        forget_old_runs(tmp_path, made + limits.MAP_RUN_KEPT_S + 10)
        assert [path.name for path in tmp_path.iterdir()] == ["busy.lowtide"]


# ---- the asynchronous twin ----


async def test_amap_does_what_map_does(server: BatchServer) -> None:
    found = await lowtide.amap(ROWS, prompt=PROMPT, server=ADDRESS, model="m", progress=False)
    assert [row["answer"] for row in found] == ["re: Say: one", None, "re: Say: "]


async def test_amap_that_is_cancelled_stops_and_may_be_gone_on_with(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.per_beat = 10
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    def pause(stop: ThreadStop, _seconds: float) -> None:
        server.beat()
        loop.call_soon_threadsafe(reached.set)
        if stop._asked.wait(limits.WATCH_POLL_S_MIN):
            raise KeyboardInterrupt

    monkeypatch.setattr(ThreadStop, "pause", pause)
    work = asyncio.create_task(
        lowtide.amap(MANY * 100, prompt=PROMPT, server=ADDRESS, model="m", progress=False)
    )
    await reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    server.per_beat = 10_000
    found = await lowtide.amap(MANY * 100, prompt=PROMPT, server=ADDRESS, model="m", progress=False)
    assert len(found) == len(server.asked) == 4_000


# ---- what is shown ----


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """As much of IPython in a kernel as is asked for; what was drawn."""
    drawn: list[dict[str, str]] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            drawn.append(data)

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        drawn.append(data)
        return Handle()

    ipython, shown = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    shell = types.SimpleNamespace(kernel=object())
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    shown.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    yield drawn


def test_a_notebook_gets_one_line_that_is_replaced_and_nothing_of_others_is_markup(
    server: BatchServer, notebook: list[dict[str, str]]
) -> None:
    server.per_beat = 10

    def beat() -> None:
        BatchServer.beat(server)
        for batch in server.batches.values():
            batch["reason"] = "<b>no engine</b>"

    server.beat = beat  # type: ignore[method-assign]
    ask([*MANY, {"text": "bad"}], progress=True)
    texts = [each["text/plain"] for each in notebook]
    assert texts[0].startswith("0 of 41 rows")
    assert texts[-1].startswith("41 of 41 rows, 1 failed")
    assert any("<b>no engine</b>" in text for text in texts)
    assert not any("<b>" in each["text/html"] for each in notebook)
    assert "width:100.0%" in notebook[-1]["text/html"]


def test_without_progress_the_sentences_go_to_the_logger(
    server: BatchServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "lowtide"):
        ask(ROWS)
    assert caplog.messages[0] == "3 rows: 2 succeeded, 1 failed."
    assert caplog.messages[1] == "  1 x refused: no (row 2)"
    assert capsys.readouterr().err == ""
