"""Prompts that are sent in parts: each part is a beginning, and every token is read once."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.bodies.prompt_part import cut_prompt
from lowtide.core.capacity.prompt_parts import PromptParts

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ROLES = st.sampled_from(["system", "user", "assistant", "developer"])
MESSAGE = st.builds(lambda role, text: {"role": role, "content": text}, ROLES, PLAIN)
REST = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "seed": st.integers(),
        "max_tokens": st.integers(1, 100),
        "cache_salt": PLAIN,
        "chat_template_kwargs": st.dictionaries(PLAIN, st.booleans(), max_size=2),
    },
)
SHARE = st.floats(0.0, 0.999)


def texts(body: dict[str, Any]) -> list[str]:
    if "prompt" in body:
        return [body["prompt"]]
    return [message["content"] for message in body["messages"]]


@given(st.lists(MESSAGE, min_size=1, max_size=5) | PLAIN, REST, SHARE)
def test_a_part_is_a_beginning_of_the_prompt_and_nothing_else_changes(
    prompt: list[dict[str, str]] | str, rest: dict[str, Any], share: float
) -> None:
    name = "prompt" if isinstance(prompt, str) else "messages"
    body = {"model": "m", name: prompt, **rest}
    cut = cut_prompt(json.dumps(body).encode(), share)
    if cut is None:
        return
    part = json.loads(cut)
    assert {k: v for k, v in part.items() if k != name} == {"model": "m", **rest}
    whole, shorter = texts(body), texts(part)
    assert 0 < len("".join(shorter)) <= share * len("".join(whole))
    assert shorter[:-1] == whole[: len(shorter) - 1]
    assert whole[len(shorter) - 1].startswith(shorter[-1])
    if name == "messages":
        roles = [message["role"] for message in part["messages"]]
        assert roles == [message["role"] for message in body["messages"]][: len(roles)]
        assert roles[-1] != "assistant"


@given(
    st.integers(1, 100_000),
    st.floats(limits.PART_TOKENS_MIN, limits.PART_TOKENS_MAX),
    st.lists(st.booleans(), max_size=60),
)
def test_every_token_is_sent_once_in_a_bounded_number_of_parts(
    tokens: int, part: float, steps: list[bool]
) -> None:
    parts = PromptParts()
    parts.tokens = part
    least = max(1, -(-tokens // limits.PARTS_MAX))
    left, unread, sizes = tokens, 0, []
    seen = iter(steps)
    while left:
        size = parts.size(left, least, unread)
        assert size <= left
        assert size == left or size == 0 or size >= min(least, left)
        assert size <= max(part, least), "no step holds more"
        if size:
            parts.sent(size)
            sizes.append(size)
            left, unread = left - size, unread + size
        elif next(seen, False):
            parts.token_seen(1, 0.0)
        else:
            unread = 0
    assert sum(sizes) == tokens
    short = limits.PART_TOKENS_LEAST
    assert len(sizes) <= max(limits.PARTS_MAX, -(-tokens // max(short, least))) + 1
