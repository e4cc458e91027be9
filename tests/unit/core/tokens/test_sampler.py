"""core/tokens/sampler.py: few lines measured, the sum right, in any order of the lines."""

import json
import random
from collections.abc import Callable

import pytest

from lowtide import limits
from lowtide.core.tokens import sampler
from lowtide.core.tokens.features import Features, features_of_line
from lowtide.core.tokens.sampler import LineEstimator
from lowtide.core.tokens.token_model import UNTRAINED

ENGLISH = "The tide goes out twice a day; nobody asks it to. "
CHINESE = "潮水每天退去两次，没有人要求它这样做。"


def line(text: str, image_bytes: int = 0) -> bytes:
    url = {"url": "data:image/png;base64," + "A" * image_bytes}
    parts: list[object] = [{"type": "text", "text": text}]
    if image_bytes:
        parts.append({"type": "image_url", "image_url": url})
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    return json.dumps({"custom_id": "x", "body": body}).encode()


def make_english(draw: random.Random) -> bytes:
    return line(ENGLISH * draw.randint(1, 60))


def make_chinese(draw: random.Random) -> bytes:
    return line(CHINESE * draw.randint(1, 60))


def make_picture(draw: random.Random) -> bytes:
    return line(ENGLISH, draw.choice([20_000, 200_000]))


def estimates(lines: list[bytes]) -> list[int]:
    estimator = LineEstimator(UNTRAINED)
    offset, tokens = 0, []
    for each in lines:
        tokens.append(estimator.estimate(each, offset))
        offset += len(each) + 1
    return tokens


def exact(lines: list[bytes]) -> int:
    return sum(round(UNTRAINED.estimate(features_of_line(each))) for each in lines)


MAKERS = (make_english, make_chinese, make_picture)


def alternating(draw: random.Random) -> list[bytes]:
    return [MAKERS[index % 2](draw) for index in range(8_000)]


def sorted_by_kind(draw: random.Random) -> list[bytes]:
    return [MAKERS[index // 4_000](draw) for index in range(8_000)]


def shuffled(draw: random.Random) -> list[bytes]:
    return [draw.choice(MAKERS[:2])(draw) for _ in range(8_000)]


def with_pictures(draw: random.Random) -> list[bytes]:
    return [MAKERS[2 if index % 20 == 0 else 0](draw) for index in range(4_000)]


@pytest.mark.parametrize("order", [alternating, sorted_by_kind, shuffled, with_pictures])
def test_the_sum_over_a_large_file_is_right_in_any_order(
    order: Callable[[random.Random], list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = order(random.Random(11))
    truth = exact(lines)
    measured = 0

    def counting(each: bytes | memoryview) -> Features:
        nonlocal measured
        measured += 1
        return features_of_line(each)

    monkeypatch.setattr(sampler, "features_of_line", counting)
    assert sum(estimates(lines)) == pytest.approx(truth, rel=0.05)
    assert measured < len(lines) / 4


def test_every_line_of_a_small_file_is_measured() -> None:
    draw = random.Random(3)
    lines = [draw.choice(MAKERS[:2])(draw) for _ in range(40)]
    assert sum(estimates(lines)) == exact(lines)


def test_a_line_longer_than_the_distance_is_always_measured() -> None:
    lines = [line(ENGLISH)] * 500 + [line(ENGLISH * 4_000), line(CHINESE, 300_000)]
    assert len(lines[-1]) > limits.TOKENS_SAMPLE_BYTES
    tokens = estimates(lines)
    assert tokens[-2] == exact(lines[-2:-1])
    assert tokens[-1] == exact(lines[-1:])


def test_the_same_lines_give_the_same_estimates() -> None:
    lines = shuffled(random.Random(1))[:2_000]
    assert estimates(lines) == estimates(lines)
    assert min(estimates(lines)) >= 1
