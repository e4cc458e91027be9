"""Answers into typed columns beside their rows."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lowtide.tables.answers import Answer, merge_answers, read_answers, write_answers
from lowtide.tables.errors import TableError
from lowtide.tables.reader import open_table
from lowtide.tables.requests import RowIndexEntry
from lowtide.tables.result_columns import EMBEDDING_SCHEMA, ResultColumns
from lowtide.tables.writers import joined_batches

SCHEMA = {
    "type": "object",
    "required": ["label"],
    "properties": {
        "label": {"enum": ["good", "bad"]},
        "score": {"type": ["number", "null"]},
        "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "sure": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "who": {"$ref": "#/$defs/person"},
        "any": {},
    },
    "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}}},
}


def succeeded(custom_id: str, content: Any, finish_reason: str = "stop") -> bytes:
    choice = {"message": {"content": content}, "finish_reason": finish_reason}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    response = {"status_code": 200, "body": body}
    return json.dumps({"custom_id": custom_id, "response": response, "error": None}).encode()


def failed(custom_id: str, message: str) -> bytes:
    error = {"code": "too_long", "message": message}
    return json.dumps({"custom_id": custom_id, "response": None, "error": error}).encode()


def entry(number: int, fault: str | None = None) -> RowIndexEntry:
    return RowIndexEntry(number, None if fault else f"row-{number + 1}", fault)


def test_each_row_of_a_part_gets_one_answer_in_order() -> None:
    index = [entry(0), entry(1), entry(2, "no prompt"), entry(3), entry(4)]
    output = [succeeded("row-1", "yes"), succeeded("row-5", "no", "length")]
    answers = list(merge_answers(index, output, [failed("row-2", "too long")]))
    assert answers == [
        Answer(0, "yes", "stop", 5),
        Answer(1, error="too_long: too long"),
        Answer(2, error="no prompt"),
        Answer(3, error="The batch ended without an answer to this row."),
        Answer(4, "no", "length", 5),
    ]
    kept = io.BytesIO()
    assert write_answers(answers, kept) == (5, 3)
    assert list(read_answers(io.BytesIO(kept.getvalue()))) == answers


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"response": {"status_code": 400, "body": {"error": {"message": "bad"}}}}, "bad"),
        ({"response": {"status_code": 502, "body": None}}, "HTTP 502"),
        ({"response": {"status_code": 400, "body": {"error": "plain"}}}, "plain"),
        ({"error": {"code": "batch_expired", "message": "late"}}, "batch_expired: late"),
        ({"response": {"body": {"choices": [{"message": {"refusal": "I won't"}}]}}}, "I won't"),
        ({"response": {"body": {"choices": []}}}, "The answer has no text."),
        ({"error": {"message": "x" * 10_000}}, "x" * 497 + "..."),
    ],
)
def test_whatever_a_line_says_of_its_failure_is_the_row_s_error(
    line: dict[str, Any], error: str
) -> None:
    raw = json.dumps({"custom_id": "row-1"} | line).encode()
    assert [answer.error for answer in merge_answers([entry(0)], [], [raw])] == [error]


def test_half_an_emoji_in_an_answer_does_not_end_the_run() -> None:
    line = succeeded("row-1", "cut ?").replace(b"?", b"\\ud83d")
    assert [answer.text for answer in merge_answers([entry(0)], [line], [])] == ["cut ?"]


def test_whole_numbers_beyond_what_a_fraction_holds_exactly_are_taken_as_near_as_can_be() -> None:
    columns = ResultColumns([], {"type": "number"}, "answer")
    assert columns.arrays([Answer(0, str(2**53 + 1))])[0].to_pylist() == [float(2**53)]


def test_an_embedding_is_a_list_of_numbers() -> None:
    body = {"data": [{"embedding": [0.5, 1]}], "usage": {"total_tokens": 4}}
    line = json.dumps({"custom_id": "row-1", "response": {"status_code": 200, "body": body}})
    answers = list(merge_answers([entry(0)], [line.encode()], []))
    columns = ResultColumns([], EMBEDDING_SCHEMA, "embedding")
    arrays = columns.arrays(answers)
    assert columns.fields[0] == pa.field("embedding", pa.list_(pa.float64()))
    assert [array.to_pylist() for array in arrays] == [[[0.5, 1.0]], [None], [None], [4]]


def test_a_schema_s_fields_become_columns_with_types() -> None:
    columns = ResultColumns(["text"], SCHEMA, "answer")
    assert [(field.name, str(field.type)) for field in columns.fields] == [
        ("label", "string"),
        ("score", "double"),
        ("count", "int64"),
        ("sure", "bool"),
        ("tags", "list<item: string>"),
        ("who", "struct<name: string>"),
        ("any", "string"),
        ("_error", "string"),
        ("_finish_reason", "string"),
        ("_tokens", "int64"),
    ]
    value = {"label": "good", "score": 1, "count": 2.0, "sure": True, "tags": ["a"]}
    value |= {"who": {"name": "Ann", "age": 3}, "any": {"x": [1]}}
    arrays = columns.arrays([Answer(0, json.dumps(value), "stop", 9), Answer(1, error="no")])
    assert [array.to_pylist() for array in arrays] == [
        ["good", None], [1.0, None], [2, None], [True, None], [["a"], None],
        [{"name": "Ann"}, None], ['{"x":[1]}', None], [None, "no"], ["stop", None], [9, None],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "finish_reason", "error"),
    [
        ("sorry", "stop", "The answer is no JSON. The answer: sorry"),
        ("[]", "stop", "The answer is no JSON object. The answer: []"),
        ("{}", "stop", "The answer lacks label. The answer: {}"),
        ('{"label": 1}', "stop", 'label is no text. The answer: {"label": 1}'),
        ('{"label": "a", "sure": 1}', "stop", "sure is no true or false."),
        ('{"label": "a", "count": 1.5}', "stop", "count is no whole number."),
        ('{"label": "a", "count": 1e400}', "stop", ""),
        ('{"label": "a", "score": 1' + "0" * 400 + "}", "stop", "score is no number."),
        ('{"label": "a", "who": {"name": 1}}', "stop", "who.name is no text."),
        ('{"label', "length", "The answer is no JSON. It was cut short: allow more tokens."),
    ],
)
def test_an_answer_that_does_not_fit_is_an_error_and_never_another_value(
    text: str, finish_reason: str, error: str
) -> None:
    columns = ResultColumns([], SCHEMA, "answer")
    answer = Answer(0, text, finish_reason, 1)
    values = [array.to_pylist()[0] for array in columns.arrays([answer])]
    assert values[:7] == [None] * 7
    assert values[7] is not None
    assert values[7].startswith(error)
    assert values[7] == columns.error_of(answer)


@pytest.mark.parametrize(
    ("names", "schema", "collision"),
    [
        (["answer"], None, "answer"),
        (["text", "_error"], None, "_error"),
        (["label", "sure"], SCHEMA, "label, sure"),
        ([], {"properties": {"_tokens": {"type": "string"}}}, "_tokens"),
    ],
)
def test_columns_that_collide_are_refused_by_name(
    names: list[str], schema: dict[str, Any] | None, collision: str
) -> None:
    with pytest.raises(TableError, match=f"two columns called {collision}") as caught:
        ResultColumns(names, schema, "answer")
    assert "--prefix" in (caught.value.hint or "")


def test_a_prefix_stands_before_every_new_column() -> None:
    columns = ResultColumns(["answer", "_error"], None, "answer", "r_")
    assert [field.name for field in columns.fields] == [
        "r_answer", "r__error", "r__finish_reason", "r__tokens",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"properties": {"a": {"$ref": "#/$defs/gone"}}},
        {"properties": {"a": 3}},
    ],
)
def test_a_schema_that_says_nothing_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(TableError) as caught:
        ResultColumns([], schema, "answer")
    assert caught.value.code == "bad_schema"


def test_a_schema_that_refers_to_itself_ends_as_json() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    columns = ResultColumns([], node, "answer")
    assert str(columns.fields[0].type) == "string"
    assert ResultColumns([], {"properties": {"a": {"$ref": "#/properties/a"}}}, "answer")


def test_rows_and_answers_are_joined_in_the_table_s_order(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(600)))
    table = open_table(str(tmp_path / "t.csv"))
    columns = ResultColumns(table.schema.names, None, "answer")
    numbers = [0, 1, 255, 256, 599]
    answers = iter([Answer(number, f"a{number}") for number in numbers])
    joined = pa.Table.from_batches(joined_batches(table, numbers, columns, answers))
    assert joined.column("n").to_pylist() == ["0", "1", "255", "256", "599"]
    assert joined.column("answer").to_pylist() == ["a0", "a1", "a255", "a256", "a599"]


def test_answers_of_another_table_are_never_joined(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n0\n1\n")
    table = open_table(str(tmp_path / "t.csv"))
    columns = ResultColumns(table.schema.names, None, "answer")
    for answers in ([Answer(0)], [Answer(0), Answer(2)]):
        with pytest.raises(TableError, match="not what it was"):
            list(joined_batches(table, range(2), columns, iter(answers)))
