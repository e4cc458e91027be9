"""core/tokens/token_model.py: it learns a linear tokenizer, resists nonsense, and survives
storage."""

import random

import msgspec
import pytest

from lowtide.core.tokens.features import FEATURES, Features
from lowtide.core.tokens.token_model import UNTRAINED, TokenModel, TokenModelError

INDEX = {name: index for index, name in enumerate(FEATURES)}


def features(given: int = 0, **counts: float) -> Features:
    return Features(tuple(float(counts.get(name, 0)) for name in FEATURES), given)


def english(draw: random.Random, words: int) -> Features:
    return features(
        chats=1,
        messages=draw.randint(1, 4),
        letters=words * draw.uniform(4.5, 5.2),
        words=words,
        spaces=words * 1.02,
        gaps=words - 1,
        marks=words // 6,
        mark_runs=words // 7,
    )


def chinese(draw: random.Random, chars: int) -> Features:
    return features(chats=1, messages=draw.randint(1, 4), han=chars, fullwidth=chars // 12)


def linear(reported: Features) -> int:
    """A tokenizer unlike the prior: wordy English, cheap Chinese, a long template."""
    weights = {"chats": 40, "messages": 9, "words": 1.9, "mark_runs": 1, "han": 0.4, "fullwidth": 1}
    return round(sum(weight * reported.counts[INDEX[name]] for name, weight in weights.items()))


def requests(seed: int, count: int) -> list[Features]:
    draw = random.Random(seed)
    kinds = (english, chinese)
    return [draw.choice(kinds)(draw, draw.randint(10, 2_000)) for _ in range(count)]


def taught(reports: list[tuple[Features, int]], model: TokenModel = UNTRAINED) -> TokenModel:
    for reported, tokens in reports:
        model = model.learned(reported, tokens)
    return model


def error_over(model: TokenModel, batch: list[Features]) -> float:
    truth = sum(map(linear, batch))
    return abs(sum(map(model.estimate, batch)) - truth) / truth


def batch_of(kind: object, seed: int = 9) -> list[Features]:
    draw = random.Random(seed)
    make = chinese if kind == "chinese" else english
    return [make(draw, draw.randint(10, 2_000)) for _ in range(200)]


@pytest.mark.parametrize("kind", ["english", "chinese"])
def test_500_mixed_requests_teach_a_tokenizer_that_the_prior_misses(kind: str) -> None:
    model = taught([(reported, linear(reported)) for reported in requests(1, 500)])
    batch = batch_of(kind)
    assert error_over(UNTRAINED, batch) > 0.2
    assert error_over(model, batch) < 0.03


def test_one_report_in_ten_that_is_nonsense_does_no_harm() -> None:
    draw = random.Random(2)
    reports = [
        (reported, draw.choice([1, 900_000]) if draw.random() < 0.1 else linear(reported))
        for reported in requests(3, 1_000)
    ]
    assert error_over(taught(reports), batch_of("english")) < 0.1
    assert error_over(taught(reports), batch_of("chinese")) < 0.1


def test_another_tokenizer_behind_the_same_name_is_learnt_anew() -> None:
    model = taught([(reported, linear(reported) * 3) for reported in requests(1, 3_000)])
    assert error_over(model, batch_of("english")) > 1
    model = taught([(reported, linear(reported)) for reported in requests(4, 12_000)], model)
    assert error_over(model, batch_of("english")) < 0.1


def test_what_is_not_seen_for_long_is_not_forgotten() -> None:
    model = taught([(reported, linear(reported)) for reported in requests(1, 500)])
    draw = random.Random(5)
    only_english = [english(draw, draw.randint(10, 2_000)) for _ in range(3_000)]
    model = taught([(reported, linear(reported)) for reported in only_english], model)
    assert error_over(model, batch_of("chinese")) < 0.05


def test_token_ids_are_added_and_teach_nothing() -> None:
    reported = features(given=700)
    assert UNTRAINED.estimate(reported) == 700
    assert UNTRAINED.learned(reported, 700) is UNTRAINED
    plain, beside = features(han=100), features(han=100, given=700)
    assert UNTRAINED.learned(beside, 790) == UNTRAINED.learned(plain, 90)


@pytest.mark.parametrize("tokens", [0, -1, -(10**30), 10**7, 10**400])
def test_a_report_that_no_tokenizer_could_give_is_ignored(tokens: int) -> None:
    assert UNTRAINED.learned(features(chats=1, words=50), tokens) is UNTRAINED


def test_the_bytes_of_a_model_give_it_back() -> None:
    model = taught([(reported, linear(reported)) for reported in requests(1, 300)])
    data = model.to_bytes()
    assert TokenModel.from_bytes(data) == model
    assert len(data) < 64 * 1024


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"weights": (1.0,)},
        {"weights": (-1.0, *UNTRAINED.weights[1:])},
        {"anchors": (1e9, *UNTRAINED.anchors[1:])},
        {"gram": UNTRAINED.gram[1:]},
        {"gram": (UNTRAINED.gram[0][1:], *UNTRAINED.gram[1:])},
        {"gram": ((-1.0, *UNTRAINED.gram[0][1:]), *UNTRAINED.gram[1:])},
        {"moment": (float("nan"), *UNTRAINED.moment[1:])},
        {"spread": float("inf")},
        {"spread": 0.0},
        {"seen": -1},
        {"seen": "many"},
    ],
)
def test_damaged_bytes_are_refused(damage: dict[str, object]) -> None:
    fields = msgspec.structs.asdict(UNTRAINED) | damage
    with pytest.raises(TokenModelError):
        TokenModel.from_bytes(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"[]", UNTRAINED.to_bytes()[:-1]])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TokenModelError):
        TokenModel.from_bytes(data)
