"""Why lines failed: read off the error line as its reader sees it, and grouped by shape."""

import pytest

from lowtide import limits
from lowtide.core.batches.failures import (
    OTHER,
    FailureCount,
    FailureExample,
    FailureGroup,
    LineFailure,
    most_frequent,
    read_failure,
    shape_of,
)
from lowtide.core.batches.line import render_rejected, render_unexecuted


def rejected(body: bytes | None, *, status: int | None = 400, dialect: str = "openai") -> bytes:
    return render_rejected(
        "together" if dialect == "together" else "openai",
        "batch_req_1-7",
        "c-7",
        status=status,
        body=body,
        code="request_rejected",
        message="refused",
    )


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (
            rejected(b'{"error":{"message":"too long","type":"t","param":null,"code":"ctx"}}'),
            "ctx",
            "too long",
        ),
        (
            rejected(b'{"error":{"message":"no","type":"BadRequestError","code":null}}'),
            "BadRequestError",
            "no",
        ),
        (rejected(b'{"object":"error","message":"old","code":400}'), "400", "old"),
        (rejected(b'"plain"'), "400", "status 400"),
        (rejected(b'{"error":"words"}', status=500), "500", "words"),
        (rejected(None, status=404), "request_rejected", "refused"),
        (rejected(None, status=None), "request_rejected", "refused"),
        (rejected(None, dialect="together"), "request_rejected", "refused"),
        (b"{", "unknown", "the error line cannot be read"),
        (b'{"custom_id":"a"}', "unknown", "status unknown"),
    ],
)
def test_code_and_message_are_those_that_a_reader_of_the_file_finds(
    line: bytes, code: str, message: str
) -> None:
    found = read_failure(line)
    assert (found.code, found.message) == (code, message)


def test_a_line_that_never_ran_has_the_code_of_its_batch() -> None:
    for dialect in ("openai", "together"):
        line = render_unexecuted(dialect, "batch_req_1-7", "c-7", "batch_expired")  # type: ignore[arg-type]
        assert (read_failure(line).code, read_failure(line).custom_id) == ("batch_expired", "c-7")


def test_no_text_has_what_a_database_cannot_hold() -> None:
    found = read_failure(rejected(b'{"error":{"message":"a\\u0000b","code":"c\\u0000"}}'))
    assert "\0" not in found.code + found.message


@pytest.mark.parametrize(
    ("message", "shape"),
    [
        ("line 17 of 2,000 is bad", "line # of #,# is bad"),
        ("request 9f86d081884c7d65 failed", "request # failed"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id #"),
        ("deadbeef is a word, added too", "deadbeef is a word, added too"),
    ],
)
def test_messages_that_differ_in_numbers_and_ids_have_one_shape(message: str, shape: str) -> None:
    assert shape_of(message) == shape


def test_alike_failures_are_one_group_with_its_first_examples() -> None:
    count = FailureCount()
    for line in range(1, 11):
        count.add(line, LineFailure("timeout", f"no answer in {line} s", f"c-{line}"))
    count.add(11, LineFailure("500", "boom", "c-11"))
    first, second = most_frequent(count.groups)
    assert (first.code, first.shape, first.requests) == ("timeout", "no answer in # s", 10)
    assert [example.line for example in first.examples] == [1, 2, 3]
    assert (second.code, second.requests) == ("500", 1)


def test_shapes_above_the_bound_are_counted_together_and_come_last() -> None:
    count = FailureCount()
    for number in range(limits.FAILURE_SHAPES_MAX + 50):
        for repeat in range(2):
            word = "x" * (number + 1)
            count.add(number * 2 + repeat + 1, LineFailure("400", word, ""))
    groups = most_frequent(count.groups)
    assert len(groups) == limits.FAILURE_SHAPES_MAX + 1
    assert (groups[-1].code, groups[-1].requests) == (OTHER, 100)
    assert sum(group.requests for group in groups) == 2 * (limits.FAILURE_SHAPES_MAX + 50)


@pytest.mark.parametrize(
    ("code", "message", "is_incurable"),
    [
        ("400", "This model's maximum context length is 4096 tokens.", True),
        ("invalid_request_error", "m is not a multimodal model", True),
        ("422", "messages: field required", True),
        ("400", "model_not_found", False),
        ("500", "out of memory", False),
        ("503", "overloaded", False),
        ("engine_timeout", "no answer", False),
        ("batch_expired", "never ran", False),
        ("other", "", False),
    ],
)
def test_what_an_engine_refuses_for_its_content_no_retry_cures(
    code: str, message: str, is_incurable: bool
) -> None:
    example = FailureExample(1, "r-1", message)
    assert FailureGroup(code, shape_of(message), 1, (example,)).is_incurable is is_incurable
