"""core/accounts/charged_usage.py: what an engine may report, and what is charged without a
report."""

import json
from typing import Any

import pytest

from lowtide import limits
from lowtide.core.accounts.charged_usage import UsageMeter
from lowtide.core.usage import NO_USAGE, Usage, usage_of

CHAT, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/embeddings", "/v1/responses"
PLANNED = 12  # prompt tokens of the line, as planned


def line(**body: Any) -> bytes:
    prompt = {"messages": [{"role": "user", "content": "Say something about the tide."}]}
    return json.dumps({"custom_id": "a", "body": {"model": "m", **prompt, **body}}).encode()


def answer(text: str = "It goes out.", **usage: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return json.dumps({"choices": [choice], **({"usage": usage} if usage else {})}).encode()


def charged(
    request: bytes, body: bytes, endpoint: str = CHAT, meter: UsageMeter | None = None
) -> Usage:
    usage = usage_of(body) or NO_USAGE
    return (meter or UsageMeter()).charged(endpoint, request, PLANNED, body, usage)


def test_a_usual_report_is_charged_as_it_is_and_the_very_object() -> None:
    body = answer(prompt_tokens=9, completion_tokens=4)
    usage = usage_of(body) or NO_USAGE
    assert usage == Usage(9, 0, 4, 0)
    assert UsageMeter().charged(CHAT, line(), PLANNED, body, usage) is usage


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": -3, "completion_tokens": 4},
        {"prompt_tokens": 9, "completion_tokens": -4},
        {"prompt_tokens": 9.5, "completion_tokens": 4},
        {"prompt_tokens": "9", "completion_tokens": 4},
        {"prompt_tokens": 10**40, "completion_tokens": 4},
        {"prompt_tokens": 9, "completion_tokens": 10**40},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 9, "completion_tokens": 0},
        {"prompt_tokens": 10**7, "completion_tokens": 4},
        {"prompt_tokens": 9, "completion_tokens": 10**7},
        {"completion_tokens": 4},
        {"total_tokens": 13},
    ],
)
def test_what_cannot_be_is_charged_by_an_estimate(usage: dict[str, Any]) -> None:
    found = charged(line(max_tokens=50), answer(**usage))
    assert found == Usage(input_tokens=PLANNED, output_tokens=3, unreported=1)


def test_free_means_that_nothing_is_charged_and_it_is_said_all_the_same() -> None:
    meter = UsageMeter(lambda: "free")
    assert charged(line(), answer(), meter=meter) == Usage(unreported=1)
    reported = answer(prompt_tokens=9, completion_tokens=4)
    assert charged(line(), reported, meter=meter) == Usage(9, 0, 4, 0)


def test_an_estimate_never_passes_what_the_line_allows() -> None:
    long = answer("many words " * 500)
    assert charged(line(max_tokens=7), long).output_tokens == 7
    assert charged(line(max_tokens=7, n=3), long).output_tokens == 21
    assert charged(line(), long).output_tokens == 11 * 500 // 4


def test_more_than_the_line_allows_is_not_believed() -> None:
    stated = answer(prompt_tokens=9, completion_tokens=90_000)
    assert charged(line(max_tokens=100), stated).unreported == 1
    assert charged(line(max_tokens=90_000), stated).output_tokens == 90_000  # thought, not shown
    assert charged(line(max_tokens=30_000, n=3), stated).output_tokens == 90_000
    assert charged(line(), stated).output_tokens == 90_000


def test_a_template_an_image_and_token_ids_explain_a_long_prompt() -> None:
    short = len(line()) * limits.TOKENS_PER_BYTE_MAX
    template = answer(
        prompt_tokens=short + limits.USAGE_TEMPLATE_TOKENS_MAX - 100, completion_tokens=4
    )
    assert not charged(line(), template).unreported
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]
    seen = answer(prompt_tokens=80_000, completion_tokens=4)
    assert not charged(line(messages=image), seen).unreported
    assert charged(line(), seen).unreported == 1


def test_embeddings_have_no_output_and_responses_keep_theirs() -> None:
    request = json.dumps({"custom_id": "a", "body": {"model": "m", "input": "tide"}}).encode()
    vectors = b'{"data":[{"embedding":[0.5,0.5]}],"usage":{"prompt_tokens":2,"total_tokens":2}}'
    assert charged(request, vectors, EMBEDDINGS) == Usage(2)
    missing = b'{"data":[{"embedding":[0.5,0.5]}]}'
    assert charged(request, missing, EMBEDDINGS) == Usage(PLANNED, unreported=1)
    response = b'{"output":[{"type":"message","content":[{"type":"output_text","text":"ok"}]}]}'
    assert charged(request, response, RESPONSES).output_tokens > 0


def test_an_answer_of_an_unknown_shape_counts_by_its_bytes() -> None:
    odd = b'{"choices":"none","text":"' + b"x" * 400 + b'"}'
    assert charged(line(), odd).output_tokens == (len(odd) + 3) // 4
