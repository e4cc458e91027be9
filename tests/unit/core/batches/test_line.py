"""core/batches/line.py: reading planned lines, bodies for engines, output and error lines."""

import json
from typing import Any

import pytest

from lowtide.core.batches.line import (
    LineFormatError,
    RequestLine,
    engine_body,
    read_request,
    render_rejected,
    render_success,
    render_unexecuted,
)

NONE: frozenset[str] = frozenset()
BODY = b'{ "model":"m","seed":123456789012345678901234567890,"t":0.10,"stream":false}'


def rejected(dialect: Any, status: int | None, body: bytes | None) -> Any:
    line = render_rejected(
        dialect, "r1", "a", status=status, body=body, code="timeout", message="no ändwer"
    )
    assert line.isascii()
    assert line.endswith(b"\n")
    return json.loads(line)


def test_a_line_is_read_with_its_body_byte_for_byte() -> None:
    line = b'{"custom_id":"\\u0061","method":"POST","body":' + BODY + b"}"
    assert read_request(line) == RequestLine("a", BODY)


def test_the_last_of_two_values_for_a_field_counts() -> None:
    line = b'{"custom_id":"a","custom_id":"b","body":{"model":"x"},"body":{"model":"m"}}'
    assert read_request(line) == RequestLine("b", b'{"model":"m"}')


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"custom_id":"a"}',
        b'{"custom_id":"\xff","body":{"model":"m"}}',
        b'{"custom_id":"a","body":' + b"[" * 100_000,
    ],
)
def test_a_file_that_changed_beneath_us_is_noticed(line: bytes) -> None:
    with pytest.raises(LineFormatError):
        read_request(line)


@pytest.mark.parametrize("model", [None, "m"])
def test_a_body_that_need_not_change_is_the_same_object(model: str | None) -> None:
    unused = frozenset({"logprobs"})
    assert engine_body(BODY, model=model, drop_fields=NONE, set_fields={}) is BODY
    assert engine_body(BODY, model=model, drop_fields=unused, set_fields={}) is BODY


def test_renaming_the_model_keeps_every_other_value_byte_for_byte() -> None:
    body = engine_body(BODY, model='q"é', drop_fields=NONE, set_fields={})
    assert b'"seed":123456789012345678901234567890,"t":0.10' in body
    assert json.loads(body)["model"] == 'q"é'


def test_fields_are_dropped_and_then_set() -> None:
    body = engine_body(
        BODY, model=None, drop_fields=frozenset({"seed", "t"}), set_fields={"t": 1, "p": [5]}
    )
    assert json.loads(body) == {"model": "m", "stream": False, "t": 1, "p": [5]}


@pytest.mark.parametrize("body", [b"[]", b'{"model":', b'"model"'])
@pytest.mark.parametrize("fields", [{}, {"p": 1}])
def test_a_body_that_changed_beneath_us_is_noticed(body: bytes, fields: dict[str, int]) -> None:
    with pytest.raises(LineFormatError):
        engine_body(body, model="n", drop_fields=NONE, set_fields=fields)


def test_a_success_has_the_shape_of_its_dialect() -> None:
    body = '{"text":"ä"}'.encode()
    assert render_success("together", "br_1", 'a"', 200, body) == (
        b'{"id":"br_1","custom_id":"a\\"","response":{"status_code":200,'
        b'"body":{"text":"\\u00e4"}}}\n'
    )
    assert render_success("openai", "batch_req_1", "a", 200, body) == (
        b'{"id":"batch_req_1","custom_id":"a","response":{"status_code":200,'
        b'"request_id":"batch_req_1","body":{"text":"\\u00e4"}},"error":null}\n'
    )


def test_an_http_failure_keeps_the_engines_answer() -> None:
    assert rejected("openai", 400, b'{"error":\n1}') == {
        "id": "r1",
        "custom_id": "a",
        "response": {"status_code": 400, "request_id": "r1", "body": {"error": 1}},
        "error": None,
    }
    assert rejected("together", 400, b'{"error":\n1}') == {
        "id": "r1",
        "custom_id": "a",
        "error": {"message": "no ändwer", "code": "timeout"},
        "response": {"status_code": 400, "body": {"error": 1}},
    }


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "invalid_request_error"), (500, "server_error")]
)
def test_an_http_failure_without_json_gets_the_usual_envelope(status: int, kind: str) -> None:
    envelope = {"message": "no ändwer", "type": kind, "param": None, "code": "timeout"}
    assert rejected("openai", status, None)["response"]["body"] == {"error": envelope}
    assert rejected("together", status, None)["response"] == {"status_code": status}


@pytest.mark.parametrize("status", [None, 200])
def test_without_a_usable_answer_there_is_no_response(status: int | None) -> None:
    assert rejected("openai", status, None) == {
        "id": "r1",
        "custom_id": "a",
        "response": None,
        "error": {"code": "timeout", "message": "no ändwer"},
    }
    assert "response" not in rejected("together", status, None)


def test_a_request_that_never_ran_says_why() -> None:
    expired = "This request could not be executed before the completion window expired."
    assert render_unexecuted("openai", "r", "a", "batch_expired") == (
        b'{"id":"r","custom_id":"a","response":null,'
        b'"error":{"code":"batch_expired","message":"%b"}}\n' % expired.encode()
    )
    assert json.loads(render_unexecuted("together", "r", "a", "batch_cancelled")) == {
        "id": "r",
        "custom_id": "a",
        "error": {
            "message": "This request was not executed because its batch was cancelled.",
            "code": "batch_cancelled",
        },
    }
