"""core/bodies/body_fields.py: what the usual fields of bodies may hold, checked through the
validator."""

import json
from typing import Any

import msgspec
import pytest

from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.batches.plan import Plan
from lowtide.core.bodies.body_fields import BODY_FIELDS, has_misfit, line_type
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
)
PROMPTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS: {"prompt": "p"},
    EMBEDDINGS: {"input": "i"},
    RESPONSES: {"input": "i"},
}
ODD: list[Any] = [
    "", "x", "7", "true", "7.5", -1, 0, 1, 7.0, 7.5, 2**80, -(2**80), 1e300, True, False,
    [], ["a"], [1], [[]], [{}], {}, {"a": None},
]  # fmt: skip


def result_of(endpoint: str, body: dict[str, Any] | bytes, **rules: Any) -> Plan | BatchError:
    validator = Validator(ValidationRules(endpoint=endpoint, dialect="together", **rules))
    raw = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    validator.feed(b'{"custom_id":"a","body":%b}\n' % raw)
    result = validator.finish()
    if isinstance(result, Plan):
        return result
    (error,) = result.errors
    return error


def test_every_endpoint_has_its_fields() -> None:
    assert set(BODY_FIELDS) == ENDPOINTS


@pytest.mark.parametrize(
    ("endpoint", "field", "value"),
    [
        (CHAT, "max_tokens", -5),
        (CHAT, "max_tokens", "ten"),
        (CHAT, "max_tokens", 7.5),
        (CHAT, "max_completion_tokens", [100]),
        (CHAT, "temperature", "hot"),
        (CHAT, "temperature", -0.1),
        (CHAT, "temperature", {}),
        (CHAT, "top_p", 1.5),
        (CHAT, "top_p", -1),
        (CHAT, "n", 0),
        (CHAT, "n", -1),
        (CHAT, "stop", 7),
        (CHAT, "stop", ["a", 7]),
        (CHAT, "tools", {"type": "function"}),
        (CHAT, "tools", ["f"]),
        (CHAT, "tool_choice", 1),
        (CHAT, "response_format", "json_object"),
        (CHAT, "seed", "x"),
        (CHAT, "logit_bias", [1]),
        (CHAT, "logprobs", 5),
        (CHAT, "presence_penalty", "much"),
        (CHAT, "user", 7),
        (COMPLETIONS, "best_of", 0),
        (COMPLETIONS, "logprobs", "x"),
        (COMPLETIONS, "echo", "perhaps"),
        (EMBEDDINGS, "dimensions", 0),
        (EMBEDDINGS, "encoding_format", 7),
        (RESPONSES, "max_output_tokens", -2),
        (RESPONSES, "reasoning", "high"),
        (RESPONSES, "text", "x"),
        (RESPONSES, "instructions", 7),
    ],
)
def test_what_no_engine_takes_is_an_error_of_its_line(
    endpoint: str, field: str, value: Any
) -> None:
    error = result_of(endpoint, {**PROMPTS[endpoint], field: value})
    assert isinstance(error, BatchError)
    words = BODY_FIELDS[endpoint][field].words
    text = f"'body.{field}' must be {words}, not {json.dumps(value)}."
    assert error == BatchError("invalid_request", text, 1, f"body.{field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", "100"),
        ("max_tokens", 100.0),
        ("max_tokens", -1),
        ("max_tokens", 10**30),
        ("temperature", 0),
        ("temperature", "0.7"),
        ("top_p", 1),
        ("n", "2"),
        ("seed", -(2**80)),
        ("logprobs", 1),
        ("stop", []),
        ("stop", "x"),
        ("stop", None),
        ("temperature", None),
        ("tool_choice", "auto"),
        ("unknown", {"any": ["thing"]}),
    ],
)
def test_what_some_engine_takes_is_left_to_it(field: str, value: Any) -> None:
    assert isinstance(result_of(CHAT, {**PROMPTS[CHAT], field: value}), Plan)


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
def test_a_number_out_of_range_is_called_so(number: str) -> None:
    for field in ("max_tokens", "temperature", "n"):
        raw = f'{{"model":"m","messages":[],"{field}":{number}}}'.encode()
        error = result_of(CHAT, raw)
        assert isinstance(error, BatchError)
        assert error.param == f"body.{field}"
        assert f"'body.{field}' is a number out of range" in error.message


@pytest.mark.parametrize("element", ["hi", 7, None, []])
def test_messages_are_objects(element: Any) -> None:
    error = result_of(CHAT, {"messages": [PROMPTS[CHAT]["messages"][0], element]})
    assert isinstance(error, BatchError)
    assert error.param == "body.messages[1]"
    assert error.message == "'body.messages[1]' must be an object."


def test_a_response_in_the_background_is_refused_by_its_own_code() -> None:
    error = result_of(RESPONSES, {"input": "i", "background": True})
    assert isinstance(error, BatchError)
    assert (error.code, error.param) == ("background_not_supported", "body.background")
    for value in (False, None):
        assert isinstance(result_of(RESPONSES, {"input": "i", "background": value}), Plan)
    assert isinstance(result_of(CHAT, {**PROMPTS[CHAT], "background": True}), Plan)


def test_a_file_that_was_validated_before_is_not_held_to_these_rules() -> None:
    body = {**PROMPTS[CHAT], "max_tokens": -5}
    assert isinstance(result_of(CHAT, body, checks_fields=False), Plan)


@pytest.mark.parametrize("endpoint", sorted(ENDPOINTS))
def test_what_the_fast_path_takes_is_no_misfit(endpoint: str) -> None:
    """Else the verdict on a line would depend on what else is odd in it."""
    (prompt_field,) = PROMPTS[endpoint]
    strict = msgspec.json.Decoder(line_type(endpoint, prompt_field, is_strict=True))
    loose = msgspec.json.Decoder(line_type(endpoint, prompt_field, is_strict=False))
    taken = 0
    for field in BODY_FIELDS[endpoint]:
        for value in ODD:
            body = {"model": "m", **PROMPTS[endpoint], field: value}
            raw = json.dumps({"custom_id": "a", "body": body}).encode()
            try:
                strict.decode(raw)
            except msgspec.ValidationError:
                continue
            taken += 1
            assert not has_misfit(endpoint, loose.decode(raw).body), (field, value)
    assert taken


def test_every_misfit_is_named_by_its_diagnosis() -> None:
    for endpoint, fields in BODY_FIELDS.items():
        for field, value in ((field, value) for field in fields for value in ODD):
            result = result_of(endpoint, {**PROMPTS[endpoint], field: value})
            fits = fields[field].fits(value)
            assert isinstance(result, Plan) is fits, (endpoint, field, value, result)


def test_a_file_of_bad_values_counts_them_all_and_no_odd_one() -> None:
    rules = ValidationRules(endpoint=CHAT, dialect="together", errors_kept=3)
    validator = Validator(rules)
    for number in range(20):
        tokens: Any = "10" if number % 2 else -7
        body = {"model": "m", **PROMPTS[CHAT], "max_tokens": tokens}
        validator.feed(json.dumps({"custom_id": str(number), "body": body}).encode() + b"\n")
    failure = validator.finish()
    assert isinstance(failure, ValidationFailure)
    assert (failure.total_errors, [error.line for error in failure.errors]) == (10, [1, 3, 5])


def test_a_response_that_continues_another_is_refused_with_what_to_do() -> None:
    error = result_of(RESPONSES, {"input": "i", "previous_response_id": "resp_1"})
    assert isinstance(error, BatchError)
    assert (error.code, error.param) == ("invalid_request", "body.previous_response_id")
    assert "whole conversation in 'input'" in error.message
    for value in (None, ""):
        made = result_of(RESPONSES, {"input": "i", "previous_response_id": value})
        assert isinstance(made, Plan) == (value is None)
