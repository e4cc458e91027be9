"""Speed of validation: 50,000 lines of 2 KB, fed in blocks, against a parse and a SHA-256.

The yardstick is what nobody can avoid: one bare msgspec decode of each line, already cut, plus the
SHA-256 that the upload computes. Run: python -m bench.bench_validate; the last line is JSON.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import Validator

LINES: Final = 50_000
LINE_BYTES: Final = 2_000
ROUNDS: Final = 7
ENDPOINT: Final = "/v1/chat/completions"

TEXTS: Final = {
    "ascii": 'The tide goes out twice a day; "nobody" asks it to.\n',
    "german": "Die Flut kommt über Nacht, schön früh für die Küstenfischer. ",
    "japanese": "潮は一日に二度引いて、また静かに満ちてくる。",
    "emoji": "low tide 🌊🌙 quiet ",
}


class BareLine(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw
    method: str
    url: str


def make_lines(text: str) -> list[bytes]:
    """LINES chat requests of about LINE_BYTES bytes each, with non-ASCII text unescaped."""
    content = ""
    while len(content.encode()) < LINE_BYTES - 200:
        content += text
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 64}
    return [
        msgspec.json.encode(
            {"custom_id": f"request-{n}", "method": "POST", "url": ENDPOINT, "body": body}
        )
        for n in range(LINES)
    ]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def parse_bare(lines: list[bytes]) -> None:
    decode = msgspec.json.Decoder(BareLine).decode
    for line in lines:
        decode(line)


def digest(blocks: list[bytes]) -> str:
    sha256 = hashlib.sha256()
    for block in blocks:
        sha256.update(block)
    return sha256.hexdigest()


def validate(blocks: list[bytes]) -> None:
    validator = Validator(ValidationRules(endpoint=ENDPOINT, dialect="openai", models={"m": "m"}))
    for block in blocks:
        validator.feed(block)
    result = validator.finish()
    assert isinstance(result, Plan), result
    assert result.requests == LINES


def measure(text: str) -> dict[str, float]:
    """Medians over interleaved rounds, so that a noisy neighbour hits both sides alike."""
    lines = make_lines(text)
    data = b"\n".join(lines) + b"\n"
    step = limits.VALIDATE_BLOCK_BYTES
    blocks = [data[start : start + step] for start in range(0, len(data), step)]
    yardsticks, validations = [], []
    for _ in range(ROUNDS):
        yardsticks.append(seconds(lambda: parse_bare(lines)) + seconds(lambda: digest(blocks)))
        validations.append(seconds(lambda: validate(blocks)))
    yardstick, validation = statistics.median(yardsticks), statistics.median(validations)
    return {
        "megabytes": round(len(data) / 1e6, 1),
        "yardstick_s": round(yardstick, 4),
        "validate_s": round(validation, 4),
        "yardstick_mb_per_s": round(len(data) / 1e6 / yardstick),
        "validate_mb_per_s": round(len(data) / 1e6 / validation),
        "ratio": round(validation / yardstick, 3),
    }


def main() -> None:
    results = {name: measure(text) for name, text in TEXTS.items()}
    for name, result in results.items():
        print(f"{name:10} {result}")
    print(json.dumps({"bench": "validate", "lines": LINES, "results": results}))


if __name__ == "__main__":
    main()
