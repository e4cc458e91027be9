"""The bounds that lines name for their answers, summed by model; odd values change nothing else."""

from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": []},
    "/v1/completions": {"prompt": "p"},
    "/v1/embeddings": {"input": "i"},
    "/v1/responses": {"input": "i"},
}


def planned(endpoint: str, *bodies: dict[str, Any]) -> Plan:
    validator = Validator(ValidationRules(endpoint=endpoint, dialect="together"))
    for number, body in enumerate(bodies):
        request = {"custom_id": str(number), "body": {"model": "m", **PROMPTS[endpoint], **body}}
        validator.feed(msgspec.json.encode(request) + b"\n")
    plan = validator.finish()
    assert isinstance(plan, Plan), plan
    return plan


@pytest.mark.parametrize(
    ("endpoint", "body", "bound"),
    [
        ("/v1/chat/completions", {}, 0),
        ("/v1/chat/completions", {"max_tokens": 7}, 7),
        ("/v1/chat/completions", {"max_completion_tokens": 8}, 8),
        ("/v1/chat/completions", {"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ("/v1/chat/completions", {"max_tokens": None, "max_completion_tokens": None}, 0),
        ("/v1/chat/completions", {"max_output_tokens": 9}, 0),
        ("/v1/chat/completions", {"max_tokens": 7, "n": 3}, 21),
        ("/v1/chat/completions", {"max_tokens": 7, "n": "3"}, 21),
        ("/v1/chat/completions", {"max_tokens": 7, "n": 3.0}, 21),
        ("/v1/chat/completions", {"n": 3}, 0),
        ("/v1/completions", {"max_tokens": 7}, 7),
        ("/v1/completions", {"max_tokens": 7, "n": 2, "best_of": 5}, 35),
        ("/v1/responses", {"max_output_tokens": 9, "n": 4}, 9),
        ("/v1/responses", {"max_output_tokens": 9}, 9),
        ("/v1/responses", {"max_tokens": 9}, 0),
        ("/v1/embeddings", {"max_output_tokens": 9, "max_tokens": 9}, 0),
        ("/v1/chat/completions", {"max_tokens": 10**30}, limits.OUTPUT_TOKENS_MAX),
    ],
)
def test_each_endpoint_reads_its_own_bound(endpoint: str, body: dict[str, Any], bound: int) -> None:
    plan = planned(endpoint, body, {}, body)
    assert plan.models["m"].output_tokens == 2 * bound


@pytest.mark.parametrize("odd", [-1, 0, "-1", None])
def test_what_is_no_number_from_one_up_bounds_nothing(odd: Any) -> None:
    plan = planned("/v1/chat/completions", {"max_tokens": odd}, {"max_tokens": 5})
    assert plan.requests == 2
    assert plan.models["m"].output_tokens == 5
    assert plan.models["m"].unbounded == 1


@pytest.mark.parametrize(
    ("number", "tokens"), [("7", 7), (7.0, 7), (True, 1), (1e300, limits.OUTPUT_TOKENS_MAX)]
)
def test_a_bound_counts_as_engines_read_numbers(number: Any, tokens: int) -> None:
    plan = planned("/v1/chat/completions", {"max_tokens": number}, {"max_tokens": 5})
    assert plan.models["m"].output_tokens == tokens + 5
    assert plan.models["m"].unbounded == 0


def test_embeddings_are_bounded_and_put_out_nothing() -> None:
    share = planned("/v1/embeddings", {}, {"max_tokens": 9}).models["m"]
    assert (share.output_tokens, share.unbounded) == (0, 0)


def test_each_model_has_its_own_sum() -> None:
    plan = planned(
        "/v1/chat/completions",
        {"model": "a", "max_tokens": 1},
        {"model": "b", "max_tokens": 10},
        {"model": "a", "max_tokens": 2},
    )
    assert {name: share.output_tokens for name, share in plan.models.items()} == {"a": 3, "b": 10}


BLANK_RULES = ValidationRules(endpoint="/v1/embeddings", dialect="together", requests_max=10)
REQUEST = b'{"custom_id":"%d","body":{"model":"m","input":"i"}}\n'


def verdict(content: bytes, block_bytes: int) -> tuple[Any, int]:
    """The result, and how many bytes were read until it was known."""
    validator, read = Validator(BLANK_RULES), 0
    for start in range(0, len(content), block_bytes):
        if validator.is_decided:
            break
        validator.feed(content[start : start + block_bytes])
        read = min(len(content), start + block_bytes)
    return validator.finish(), read


@pytest.mark.parametrize("blank", [b"\n", b" \r\n"])
@pytest.mark.parametrize("block_bytes", [7_919, 1 << 20])
def test_a_file_of_blank_lines_is_refused_and_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, blank: bytes, block_bytes: int
) -> None:
    monkeypatch.setattr(limits, "BLANK_LINES_MAX", 1_000)
    content = REQUEST % 1 + b"no JSON\n" + blank * 500 + REQUEST % 2 + blank * 2_000_000
    failure, read = verdict(content, block_bytes)
    assert isinstance(failure, ValidationFailure)
    assert [error.code for error in failure.errors] == ["invalid_file_format"]
    assert "more than 1,000 blank lines" in failure.errors[0].message
    assert read <= 2 * block_bytes


def test_as_many_blank_lines_as_are_allowed_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BLANK_LINES_MAX", 1_000)
    plan, _ = verdict(b"\n" * 400 + REQUEST % 1 + b"\n" * 600, 100)
    assert isinstance(plan, Plan)
    failure, _ = verdict(b"\n" * 400 + REQUEST % 1 + b"\n" * 601 + REQUEST % 1, 100)
    assert isinstance(failure, ValidationFailure)


def test_a_file_with_too_many_requests_is_not_read_to_its_end() -> None:
    content = b"".join(REQUEST % number for number in range(100_000))
    failure, read = verdict(content, 1_000)
    assert isinstance(failure, ValidationFailure)
    assert failure.errors[0].code == "too_many_tasks"
    assert read <= 2_000
