"""Token estimates under any text, any report and any history."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.tokens.features import FEATURES, Features, features_of_line
from lowtide.core.tokens.token_model import UNTRAINED, TokenModel

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
COUNTS = st.floats(0, 1e9, allow_nan=False)
FEATURE_VALUES = st.builds(
    Features,
    st.tuples(*[st.one_of(st.just(0.0), COUNTS)] * len(FEATURES)),
    st.integers(0, 10**6),
)
REPORTS = st.one_of(st.integers(), st.integers(0, 10**5), st.sampled_from([0, 1, 2**63, 10**300]))
HISTORIES = st.lists(st.tuples(FEATURE_VALUES, REPORTS), max_size=25)


def features_of(body: bytes) -> Features:
    return features_of_line(b'{"body": %b}' % body)


def chat(text: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


def taught(history: list[tuple[Features, int]]) -> TokenModel:
    model = UNTRAINED
    for features, tokens in history:
        model = model.learned(features, tokens)
    return model


@given(HISTORIES, FEATURE_VALUES)
def test_an_estimate_is_finite_and_not_negative_whatever_engines_reported(
    history: list[tuple[Features, int]], features: Features
) -> None:
    estimate = taught(history).estimate(features)
    assert math.isfinite(estimate)
    assert estimate >= features.given


@given(HISTORIES, TEXT, TEXT)
def test_an_estimate_never_falls_when_the_text_grows(
    history: list[tuple[Features, int]], text: str, more: str
) -> None:
    model = taught(history)
    assert model.estimate(features_of(chat(text + more))) >= model.estimate(
        features_of(chat(text))
    ) * (1 - 1e-12)


@given(HISTORIES)
def test_storing_a_model_changes_nothing(history: list[tuple[Features, int]]) -> None:
    model = taught(history)
    assert TokenModel.from_bytes(model.to_bytes()) == model


@given(st.binary(max_size=300))
def test_any_bytes_are_measured_or_refused_never_more(data: bytes) -> None:
    for line in (data, b'{"body": %b}' % data):
        assert all(0 <= count <= len(line) + 1 for count in features_of_line(line).counts)


@given(TEXT)
def test_escapes_make_no_difference(text: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    raw = json.dumps(body, ensure_ascii=False).encode()
    assert features_of(raw) == features_of(chat(text))
