"""The bounds that lines name for their answers, summed by model; odd values change nothing else."""

from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.core.plan import Plan
from lowtide.core.validation import ValidationRules, Validator

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
        ("/v1/chat/completions", {"max_tokens": 7, "n": "3"}, 7),
        ("/v1/chat/completions", {"max_tokens": 7, "n": 3.0}, 7),
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


@pytest.mark.parametrize("odd", ["7", 7.0, -1, 0, True, 1e300])
def test_an_odd_bound_is_left_to_the_engine(odd: Any) -> None:
    plan = planned("/v1/chat/completions", {"max_tokens": odd}, {"max_tokens": 5})
    assert plan.requests == 2
    assert plan.models["m"].output_tokens == 5


def test_each_model_has_its_own_sum() -> None:
    plan = planned(
        "/v1/chat/completions",
        {"model": "a", "max_tokens": 1},
        {"model": "b", "max_tokens": 10},
        {"model": "a", "max_tokens": 2},
    )
    assert {name: share.output_tokens for name, share in plan.models.items()} == {"a": 3, "b": 10}
