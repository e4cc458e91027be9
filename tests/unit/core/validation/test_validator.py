"""core/validation/validator.py and core/validation/line_errors.py: every rule, with its code, text
and place."""

import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.batches.plan import Plan, unpack_entries
from lowtide.core.bodies.media_urls import MediaSetting, media_rule
from lowtide.core.tokens.features import features_of_line
from lowtide.core.tokens.token_model import UNTRAINED
from lowtide.core.validation.rules import PROMPT_FIELDS, ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

CHAT = "/v1/chat/completions"
RULES = ValidationRules(endpoint=CHAT, dialect="openai")
TOGETHER = ValidationRules(endpoint=CHAT, dialect="together")
MESSAGES = [{"role": "user", "content": "hi"}]


def make(custom_id: Any = "a", **changes: Any) -> dict[str, Any]:
    """A valid line, with changes; `body_x=1` changes the body, and `...` removes a field."""
    body: dict[str, Any] = {"model": "m", "messages": MESSAGES}
    line: dict[str, Any] = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}
    for name, value in changes.items():
        place, key = (body, name[5:]) if name.startswith("body_") else (line, name)
        place[key] = value
        if value is ...:
            del place[key]
    if custom_id is ...:
        del line["custom_id"]
    return line


def data_of(*lines: Any) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def run(data: bytes, rules: ValidationRules = RULES) -> Plan | ValidationFailure:
    validator = Validator(rules)
    validator.feed(data)
    return validator.finish()


def errors_of(*lines: Any, rules: ValidationRules = RULES) -> tuple[BatchError, ...]:
    result = run(data_of(*lines), rules)
    assert isinstance(result, ValidationFailure), result
    return result.errors


def only_error(line: Any, rules: ValidationRules = RULES) -> BatchError:
    (error,) = errors_of(line, rules=rules)
    return error


def plan_of(*lines: Any, rules: ValidationRules = RULES) -> Plan:
    result = run(data_of(*lines), rules)
    assert isinstance(result, Plan), result
    return result


def test_every_endpoint_has_its_line_type_and_its_field() -> None:
    assert set(PROMPT_FIELDS) == ENDPOINTS


def test_a_good_file_becomes_a_plan() -> None:
    data = data_of(make("a"), b"", make("b", body_model="n"), make("c")).rstrip(b"\n")
    plan = run(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert isinstance(plan, Plan)
    assert [entry.line for entry in unpack_entries(plan.data)] == [1, 4, 3]
    assert [(chunk.model, chunk.first, chunk.count) for chunk in plan.chunks] == [
        ("m", 0, 2),
        ("n", 2, 1),
    ]
    for entry in unpack_entries(plan.data):
        raw = (b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))[entry.offset :][: entry.length]
        assert json.loads(raw)["url"] == CHAT


def test_progress_can_be_read_between_blocks() -> None:
    validator = Validator(RULES)
    validator.feed(memoryview(data_of(make("a"), make("b"))))
    validator.feed(bytearray(b"{"))
    assert (validator.lines_seen, validator.bytes_seen) == (2, len(data_of(make(), make())) + 1)


def test_aliases_share_the_canonical_models_plan() -> None:
    rules = ValidationRules(endpoint=CHAT, dialect="openai", models={"m": "M", "M": "M", "n": "N"})
    plan = plan_of(make("a"), make("b", body_model="n"), make("c", body_model="M"), rules=rules)
    assert {name: share.requests for name, share in plan.models.items()} == {"M": 2, "N": 1}
    assert [chunk.model for chunk in plan.chunks] == ["M", "N"]


def test_tokens_are_estimated_with_what_was_learnt_of_the_canonical_model() -> None:
    line = make(
        body_pad="not of the prompt", body_messages=[{"role": "user", "content": "潮" * 90}]
    )
    features = features_of_line(json.dumps(line).encode())
    model = UNTRAINED
    for _ in range(200):
        model = model.learned(features, 300)
    rules = ValidationRules(endpoint=CHAT, dialect="openai", models={"m": "M"})
    validator = Validator(rules, {"M": model})
    validator.feed(json.dumps(line).encode())
    plan = validator.finish()
    assert isinstance(plan, Plan)
    assert plan.models["M"].input_tokens == pytest.approx(300, rel=0.02)
    untaught = plan_of(line).models["m"].input_tokens
    assert untaught == round(UNTRAINED.estimate(features))
    assert unpack_entries(plan.data)[0].input_tokens == plan.models["M"].input_tokens


def test_the_smallest_request_has_tokens() -> None:
    smallest = b'{"custom_id":"a","body":{"model":"m","messages":[]}}'
    assert plan_of(smallest, rules=TOGETHER).models["m"].input_tokens > 0


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"{",
        b'{"custom_id":"a",}',
        json.dumps(make()).encode() + b" x",
    ],
)
def test_a_line_that_is_not_json(line: bytes) -> None:
    text = "This line is not parseable as valid JSON."
    assert only_error(line) == BatchError("invalid_json_line", text, 1, None)


def test_a_line_that_is_not_json_says_why_where_that_is_known() -> None:
    line = json.dumps(make(body_temperature=float("nan"))).encode()
    error = only_error(line)
    assert error.code == "invalid_json_line"
    place = line.index(b"NaN") + 1
    assert error.message == (
        f"This line is not parseable as valid JSON. NaN (byte {place} of the line) is no JSON"
        " value: write null or a number."
    )


def test_half_a_character_is_called_so_and_not_bad_json() -> None:
    error = only_error(make(body_user="cut \ud83d"))
    assert error.code == "invalid_request"
    assert "surrogate pair" in error.message
    assert "\\ud83d (byte " in error.message


def test_prompts_longer_than_a_known_context_are_a_warning_and_no_error() -> None:
    long = [{"role": "user", "content": "many words " * 200}]
    rules = ValidationRules(
        endpoint=CHAT, dialect="openai", models={"m": "M", "n": "N"}, contexts={"M": 100}
    )
    validator = Validator(rules)
    lines = [make("short"), *(make(f"{n}", body_messages=long) for n in range(7))]
    validator.feed(data_of(*lines, make("other", body_model="n", body_messages=long)))
    plan = validator.finish()
    assert isinstance(plan, Plan)
    (warning,) = plan.warnings
    assert (warning.code, warning.line, warning.param) == ("context_exceeded", 2, "body.messages")
    assert "lines 2, 3, 4, 5, 6 and 2 more" in warning.message
    assert "context of M, 100 tokens" in warning.message


def test_invalid_utf8_is_found_in_fields_that_nobody_reads() -> None:
    line = json.dumps(make(body_user="HERE")).encode().replace(b"HERE", b"\xff")
    error = only_error(line)
    assert (error.code, error.line) == ("invalid_json_line", 1)
    assert (
        error.message == f"This line is not valid UTF-8 (byte {line.index(0xFF) + 1} of the line)."
    )


@pytest.mark.parametrize("line", [b"[]", b'"a"', b"1", b"null", b"true"])
def test_a_line_that_is_no_object(line: bytes) -> None:
    assert only_error(line) == BatchError(
        "invalid_request", "A line must be a JSON object.", 1, None
    )


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"custom_id": ...}, "custom_id"),
        ({"custom_id": None}, "custom_id"),
        ({"method": ...}, "method"),
        ({"url": None}, "url"),
        ({"body": ...}, "body"),
        ({"body": None}, "body"),
        ({"body_model": ...}, "body.model"),
        ({"body_model": None}, "body.model"),
        ({"body_messages": ...}, "body.messages"),
        ({"body_messages": None}, "body.messages"),
    ],
)
def test_a_missing_parameter_is_named(changes: Mapping[str, Any], param: str) -> None:
    text = f"Missing required parameter: '{param}'."
    assert only_error(make(**changes)) == BatchError("missing_required_parameter", text, 1, param)


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"custom_id": 7}, "custom_id", "'custom_id' must be a string."),
        ({"custom_id": ""}, "custom_id", "'custom_id' must not be empty."),
        (
            {"custom_id": "é" * 513},
            "custom_id",
            "'custom_id' has 513 characters; at most 512 are allowed.",
        ),
        ({"method": "GET"}, "method", "'method' must be 'POST', not 'GET'."),
        ({"method": 1}, "method", "'method' must be a string."),
        ({"url": 1}, "url", "'url' must be a string."),
        ({"body": []}, "body", "'body' must be a JSON object."),
        ({"body": "x"}, "body", "'body' must be a JSON object."),
        ({"body_model": 1}, "body.model", "'body.model' must be a string."),
        ({"body_model": ""}, "body.model", "'body.model' must not be empty."),
        (
            {"body_model": "m" * 513},
            "body.model",
            "'body.model' has 513 characters; at most 512 are allowed.",
        ),
        ({"body_messages": "hi"}, "body.messages", "'body.messages' must be an array."),
        ({"body_messages": {}}, "body.messages", "'body.messages' must be an array."),
        ({"body_stream": 1}, "body.stream", "'body.stream' must be a boolean."),
    ],
)
def test_a_wrong_value_is_named(changes: Mapping[str, Any], param: str, text: str) -> None:
    assert only_error(make(**changes)) == BatchError("invalid_request", text, 1, param)


def test_a_stream_that_is_on_has_a_code_of_its_own() -> None:
    text = "'body.stream' must be false or absent: a batch returns whole answers."
    expected = BatchError("stream_not_supported", text, 1, "body.stream")
    assert only_error(make(body_stream=True)) == expected


@pytest.mark.parametrize("stream", [False, None])
def test_a_stream_that_is_off_is_accepted(stream: bool | None) -> None:
    assert plan_of(make(body_stream=stream)).requests == 1


@pytest.mark.parametrize("url", ["/chat/completions", "/v1/completions", CHAT + "/", ""])
@pytest.mark.parametrize("rules", [RULES, TOGETHER])
def test_a_url_must_be_the_endpoint_exactly(url: str, rules: ValidationRules) -> None:
    text = f"The url '{url}' of this request is not the endpoint of its batch, '{CHAT}'."
    assert only_error(make(url=url), rules) == BatchError("url_mismatch", text, 1, "url")


def test_together_lines_need_neither_method_nor_url() -> None:
    lines = [make("a", method=..., url=...), make("b", method=None, url=None), make("c")]
    assert plan_of(*lines, make("d", method="FILE"), rules=TOGETHER).requests == 4
    assert only_error(make(method=1), TOGETHER).param == "method"


def test_together_custom_ids_are_at_most_64_characters() -> None:
    assert plan_of(make("é" * 64), rules=TOGETHER).requests == 1
    assert only_error(make("x" * 65), TOGETHER).param == "custom_id"
    assert plan_of(make("x" * 512)).requests == 1


def test_an_unknown_model_is_told_what_there_is() -> None:
    models = {f"model-{n}": f"model-{n}" for n in range(7)}
    error = only_error(make(), ValidationRules(endpoint=CHAT, dialect="openai", models=models))
    assert error.message == (
        "The model 'm' is not available. "
        "Available: model-0, model-1, model-2, model-3, model-4 and 2 more."
    )
    assert (error.code, error.param) == ("model_not_found", "body.model")
    few = ValidationRules(endpoint=CHAT, dialect="openai", models={"alias": "b", "a": "a"})
    assert only_error(make(), few).message == "The model 'm' is not available. Available: a, b."
    none = ValidationRules(endpoint=CHAT, dialect="openai", models={})
    assert only_error(make(), none).message.endswith("No model is available at the moment.")


def test_a_long_value_is_cut_in_a_message() -> None:
    rules = ValidationRules(endpoint=CHAT, dialect="openai", models={})
    assert len(only_error(make(body_model="m" * 10_000), rules).message) < 200


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [("/v1/completions", "prompt"), ("/v1/embeddings", "input"), ("/v1/responses", "input")],
)
def test_other_endpoints_take_a_string_or_an_array(endpoint: str, field: str) -> None:
    rules = ValidationRules(endpoint=endpoint, dialect="openai")
    good = [
        make(str(n), url=endpoint, body={"model": "m", field: value})
        for n, value in enumerate(["text", "", ["a", "b"], [1, 2], [[1], [2]]])
    ]
    assert plan_of(*good, rules=rules).requests == 5
    missing = only_error(make(url=endpoint), rules)
    assert missing.message == f"Missing required parameter: 'body.{field}'."
    wrong = only_error(make(url=endpoint, body={"model": "m", field: 5}), rules)
    assert wrong.message == f"'body.{field}' must be a string or an array."


def test_a_duplicate_is_found_even_when_the_first_use_was_bad() -> None:
    lines = [make("a"), make("b", body_stream=True), make("a"), make("b")]
    bad_stream, first, second = errors_of(*lines)
    assert bad_stream.param == "body.stream"
    text = (
        "The custom_id for this request is a duplicate of another request. The custom_id "
        "parameter must be unique for each request in a batch."
    )
    assert first == BatchError("duplicate_custom_id", text, 3, "custom_id")
    assert second == BatchError("duplicate_custom_id", text, 4, "custom_id")


def test_a_duplicate_is_told_of_before_what_else_is_wrong_with_its_line() -> None:
    lines = [make("a"), make("a", url="/v1/elsewhere"), make("c", url="/v1/elsewhere"), make("a")]
    errors = errors_of(*lines)
    assert [(error.code, error.line) for error in errors] == [
        ("duplicate_custom_id", 2),
        ("url_mismatch", 3),
        ("duplicate_custom_id", 4),
    ]


def test_all_duplicates_are_counted_and_the_first_errors_kept() -> None:
    rules = ValidationRules(endpoint=CHAT, dialect="openai", errors_kept=3)
    validator = Validator(rules)
    lines = [make("a"), make("a"), make("b", body_stream=True), make("a"), make("a"), make("b")]
    for n in range(0, len(lines), 2):
        validator.feed(data_of(*lines[n : n + 2]))
    result = validator.finish()
    assert isinstance(result, ValidationFailure)
    assert result.total_errors == 5
    assert [error.line for error in result.errors] == [2, 3, 4]


def test_a_request_costs_some_hundred_bytes_of_memory_at_most() -> None:
    count = 50_000
    line = json.dumps(make("ID", body_note="x" * 300)).encode() + b"\n"
    tracemalloc.start()
    try:
        validator = Validator(ValidationRules(endpoint=CHAT, dialect="openai"))
        for start in range(0, count, 500):
            ids = range(start, start + 500)
            validator.feed(b"".join(line.replace(b"ID", b"request-%08d" % n) for n in ids))
        plan = validator.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(plan, Plan)
    assert plan.requests == count
    assert peak / count < 160


def test_a_repeated_field_counts_by_its_last_value() -> None:
    line = json.dumps(make()).encode()
    assert plan_of(line.replace(b"{", b'{"custom_id":"z",', 1)).requests == 1
    error = only_error(line.replace(b"{", b'{"custom_id":5,', 1))
    assert error.message == "This line gives a field more than once, with different types."


def test_nesting_without_end_is_refused() -> None:
    deep = json.dumps(make(body_x="DEEP")).replace('"DEEP"', "[" * 50_000 + "]" * 50_000)
    error = only_error(deep.encode())
    assert error == BatchError("invalid_request", "This line is nested too deeply.", 1, None)


def test_a_line_above_the_limit_is_refused_and_the_next_one_read() -> None:
    rules = ValidationRules(endpoint=CHAT, dialect="openai", line_bytes_max=200)
    validator = Validator(rules)
    for _ in range(100):
        validator.feed(b"x" * 64)
    validator.feed(b"\n" + data_of(make("a"), make("b", body_stream=True)))
    result = validator.finish()
    assert isinstance(result, ValidationFailure)
    text = "This line is longer than 200 bytes."
    assert result.errors[0] == BatchError("invalid_request", text, 1, None)
    assert (result.errors[1].line, result.total_errors, result.lines) == (3, 2, 3)


@pytest.mark.parametrize("data", [b"", b"\n\n", b" \t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n "])
def test_a_file_without_requests_is_empty(data: bytes) -> None:
    result = run(data)
    assert isinstance(result, ValidationFailure)
    assert result.errors == (BatchError("empty_file", "The file has no requests.", None, None),)


def test_as_many_requests_as_allowed_are_accepted_and_one_more_is_not() -> None:
    rules = ValidationRules(endpoint=CHAT, dialect="openai", requests_max=3)
    lines = [make(str(n)) for n in range(3)]
    assert plan_of(*lines, b"", b" ", rules=rules).requests == 3
    result = run(data_of(*lines, b"bad", b"bad", b"") + b"tail", rules)
    assert isinstance(result, ValidationFailure)
    text = (
        "The file has more than 3 requests, which is the limit for one batch. "
        "Split it into several files."
    )
    assert result.errors == (BatchError("too_many_tasks", text, None, None),)
    assert (result.total_errors, result.lines) == (1, 7)


def test_only_so_many_errors_are_kept_but_all_are_counted() -> None:
    lines = data_of(*[b"bad"] * (limits.LINE_ERRORS_KEPT + 5), make())
    result = run(lines)
    assert isinstance(result, ValidationFailure)
    assert [error.line for error in result.errors] == list(range(1, limits.LINE_ERRORS_KEPT + 1))
    assert result.total_errors == limits.LINE_ERRORS_KEPT + 5


def test_an_unknown_endpoint_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        Validator(ValidationRules(endpoint="/v1/moderations", dialect="openai"))


@pytest.mark.parametrize("setting", ["refuse", ("example.org",)])
def test_a_url_that_may_not_be_there_is_an_error_of_its_line(setting: MediaSetting) -> None:
    def line(custom_id: str, url: str) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": url}}
        messages = [{"role": "user", "content": [part]}]
        return make(custom_id, body={"model": "m", "messages": messages})

    rules = msgspec.structs.replace(RULES, media=media_rule(setting))
    lines = [line("a", "data:image/png;base64,AA=="), make("b"), line("c", "http://10.0.0.1/x")]
    (error,) = errors_of(*lines, rules=rules)
    assert (error.code, error.line, error.param) == ("invalid_request", 3, "body.url")
    assert "data: URL" in error.message
    assert isinstance(run(data_of(*lines)), Plan), "by default they go on to the engine"
