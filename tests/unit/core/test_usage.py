"""core/usage.py: tokens out of whatever an engine reports."""

import msgspec
import pytest

from lowtide import limits
from lowtide.core.usage import NO_USAGE, UNREADABLE, Usage, usage_of


def test_the_chat_shape_is_read_with_its_details() -> None:
    body = (
        b'{"usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,'
        b' "prompt_tokens_details": {"cached_tokens": 8},'
        b' "completion_tokens_details": {"reasoning_tokens": 5}}}'
    )
    assert usage_of(body) == Usage(11, 8, 7, 5)


def test_the_responses_shape_is_read_with_its_details() -> None:
    body = (
        b'{"usage": {"input_tokens": 11, "output_tokens": 7,'
        b' "input_tokens_details": {"cached_tokens": 8},'
        b' "output_tokens_details": {"reasoning_tokens": 5}}}'
    )
    assert usage_of(body) == Usage(11, 8, 7, 5)


def test_embeddings_have_input_tokens_only() -> None:
    assert usage_of(b'{"usage": {"prompt_tokens": 4, "total_tokens": 4}}') == Usage(4)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"usage": null}',
        b'{"usage": "many"}',
        b'{"usage": {"prompt_tokens": "eleven"}}',
        b'{"usage": {"prompt_tokens": 1e400}}',
        b'{"usage": [1, 2]}',
    ],
)
def test_usage_that_is_absent_or_odd_counts_nothing_and_breaks_nothing(body: bytes) -> None:
    assert usage_of(body) in (None, NO_USAGE)


def test_null_details_and_negative_figures_count_as_zero() -> None:
    body = (
        b'{"usage": {"prompt_tokens": -3, "completion_tokens": 2, "prompt_tokens_details": null}}'
    )
    assert usage_of(body) == Usage(0, 0, 2, 0)


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"null", b'"text"', b'{"usage": {', b"\xff\xfe", b"12"]
)
def test_a_body_that_is_no_object_raises_one_of_the_named_errors(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        usage_of(body)


def test_nesting_without_end_raises_one_of_the_named_errors() -> None:
    with pytest.raises(UNREADABLE):
        usage_of(b'{"usage":' + b'{"a":' * 200_000)


def test_usages_add_up_field_by_field() -> None:
    total = Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40)
    assert total == Usage(11, 22, 33, 44)
    assert total.total_tokens == 44
    assert msgspec.structs.replace(NO_USAGE) + total == total


def test_absurd_counts_are_bounded_and_parts_never_pass_their_whole() -> None:
    body = (
        b'{"usage":{"prompt_tokens":3,"completion_tokens":99999999999999999999,'
        b'"prompt_tokens_details":{"cached_tokens":7}}}'
    )
    usage = usage_of(body)
    assert usage is not None
    assert (usage.input_tokens, usage.cached_tokens) == (3, 3)
    assert usage.output_tokens == limits.USAGE_TOKENS_MAX
