"""The input files of the demo: lines of reviews, of essays, and some that no engine takes."""

import json
import random
from typing import Any, Final

from testkit.demo.review_engine import CONTEXT_TOKENS, MODEL

LARGE: Final = "meta-llama/Llama-3.3-70B-Instruct"
SMALL: Final = "meta-llama/Llama-3.1-8B-Instruct"
UNSERVED: Final = "deepseek-ai/DeepSeek-V3.1"

_REVIEWS: Final = (
    "I love this kettle, it is sturdy and works every morning.",
    "The parcel arrived two weeks late and the lid was scratched.",
    "Too expensive for what it does, though support was friendly.",
    "It broke after a month. The hotline never answered, I want a refund.",
    "Does what it says.",
    "Great price, fast courier, and the instructions are perfect.",
    "The valve leaks. My money is lost.",
    "Καλό προϊόν, γρήγορη αποστολή.",
    "おおむね満足しています。説明書だけ分かりにくい。",
    "Arrived in a torn box, but the lamp itself works.",
)
_PROMPT: Final = "Sort this review: sentiment and topic, as JSON.\n\n"
_SUBJECTS: Final = ("tides", "harbours", "lighthouses", "storm surges", "salt marshes", "estuaries")


def reviews(count: int, *, seed: int = 0, failing: int = 0) -> bytes:
    """Requests about reviews; every `failing`-th one is refused, for one of three reasons."""
    chance = random.Random(seed)
    lines = []
    for number in range(count):
        content: Any = _PROMPT + chance.choice(_REVIEWS)
        if failing and number % failing == failing - 1:
            content = _refused(number // failing, chance)
        lines.append(_line(f"review-{number + 1:05d}", MODEL, content, 40))
    return b"".join(lines)


def essays(count: int, model: str, *, tokens: int = 180, seed: int = 0) -> bytes:
    """Requests whose answers take a while."""
    chance = random.Random(seed)
    return b"".join(
        _line(
            f"essay-{number + 1:05d}",
            model,
            f"Write a short piece about {chance.choice(_SUBJECTS)} for readers of"
            f" {chance.randrange(9, 99)}. " + "Mind the sources. " * chance.randrange(2, 40),
            chance.randrange(tokens // 2, 2 * tokens),
        )
        for number in range(count)
    )


def with_mistakes() -> bytes:
    """A file that fails validation, for several reasons."""
    good = reviews(4).splitlines(keepends=True)
    twice = good[1]
    no_body = json.dumps({"custom_id": "no-body", "method": "POST", "url": "/v1/chat/completions"})
    strange = _line("strange", "no/such-model", "Hello", 20)
    return b"".join([*good, twice, b'{"custom_id": "cut off", "meth\n', no_body.encode(), b"\n",
                     strange])  # fmt: skip


def _refused(number: int, chance: random.Random) -> Any:
    match number % 3:
        case 0:
            return "Summarize: " + "very long indeed, " * (CONTEXT_TOKENS + chance.randrange(900))
        case 1:
            address = f"https://pictures.example.org/{number}.jpg"
            return [{"type": "image_url", "image_url": {"url": address}}]
        case _:
            return _PROMPT + "(emoji only) \N{SNOWFLAKE}"


def _line(custom_id: str, model: str, content: Any, tokens: int) -> bytes:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
    }
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
