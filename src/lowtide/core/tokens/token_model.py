"""How many prompt tokens a model makes of a request: learnt from what its engines report.

A tokenizer is nearly linear in `tokens.FEATURES`, so a model is one weight for each. The weights
minimise the squared error over the requests learnt from, relative to their size, plus a pull of
each weight towards its anchor: what holds where a feature was never seen. Every request learnt
from adds to the normal equations and takes one step of coordinate descent from where the last one
ended. Validation estimates with it, calibration teaches and stores it.

Invariants: weights lie between 0 and a cap each, so an estimate is finite, not negative, and never
falls when a prompt grows, whatever an engine reports. Learning makes a new value. What fades with
age is certainty, not knowledge: a model that saw no Chinese for a month keeps its weight for it.
"""

import math
from collections.abc import Iterable
from operator import mul
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.tokens.features import FEATURES, Features

_Vector = tuple[float, ...]

_STARTING_WEIGHTS: Final[dict[str, tuple[float, float]]] = {
    # feature: (weight before anything is learnt, cap). The weights are about the mean of four
    # tokenizers in use (bench/bench_tokens.py); the caps lie above tokenizers that work in bytes.
    "chats": (3.4, 20_000.0),  # a template may write a page of its own, a date, tools
    "messages": (5.0, 1_000.0),
    "prompts": (1.0, 1_000.0),
    "media": (500.0, 50_000.0),
    "letters": (0.02, 2.0),
    "words": (0.55, 8.0),
    "humps": (0.5, 8.0),
    "spaces": (0.02, 2.0),
    "gaps": (0.42, 8.0),
    "breaks": (0.05, 2.0),
    "break_runs": (0.85, 8.0),
    "digits": (0.7, 2.0),
    "numbers": (0.15, 8.0),
    "marks": (0.15, 2.0),
    "mark_runs": (0.8, 8.0),
    "latin_cyrillic": (0.9, 4.0),
    "indic_thai": (1.2, 6.0),
    "symbols": (1.4, 6.0),
    "kana": (1.0, 6.0),
    "han": (0.9, 6.0),
    "hangul": (1.0, 6.0),
    "fullwidth": (0.9, 6.0),
    "emoji": (2.4, 8.0),
}
_PRIOR: Final[_Vector] = tuple(_STARTING_WEIGHTS[name][0] for name in FEATURES)
_CAPS: Final[_Vector] = tuple(_STARTING_WEIGHTS[name][1] for name in FEATURES)
_PULLS: Final[_Vector] = tuple(0.4 / (0.5 * weight + 0.05) ** 2 for weight in _PRIOR)
"""How firmly anchors hold: as evidence of prompts that fix each weight to about half its size."""

_SIZE: Final = len(FEATURES)
_NOTHING: Final[_Vector] = (0.0,) * _SIZE
_VERSION: Final = 1
_TOKENS_WEIGHED_ALIKE: Final = 16.0  # below it a request is its template, not its text
_SPREADS_TRUSTED: Final = 3.0  # relative errors beyond this many usual ones count for less
_SPREAD_MIN: Final = 0.02  # so that an engine without noise does not make all news suspicious
_SPREAD_MEMORY: Final = 64  # requests over which the usual error is known
_SWEEPS: Final = 2  # steps per request; more change nothing that the next request would not


class TokenModelError(ValueError):
    """The bytes are no token model of this version."""


class TokenModel(msgspec.Struct, frozen=True):
    """Immutable. `gram` and `moment` are the normal equations of the requests learnt from."""

    weights: _Vector = _PRIOR
    anchors: _Vector = _PRIOR
    gram: tuple[_Vector, ...] = (_NOTHING,) * _SIZE
    moment: _Vector = _NOTHING
    seen: int = 0
    spread: float = 1.0  # the usual relative error; the first requests are trusted without limit
    version: int = _VERSION

    def estimate(self, features: Features) -> float:
        """Prompt tokens of a request: finite and not negative."""
        return _dot(self.weights, features.counts) + features.given

    def learned(self, features: Features, prompt_tokens: int) -> "TokenModel":
        """The model after an engine reported `prompt_tokens` for a request of these features.

        A report that no tokenizer could give is ignored. One far off the usual error counts for
        less, until such reports become the usual.
        """
        counted = prompt_tokens - features.given
        if not 0 < counted <= _tokens_max(features):
            return self
        expected = _dot(self.weights, features.counts)
        error = abs(counted - expected) / max(counted, expected)
        limit = _SPREADS_TRUSTED * self.spread
        size = max(counted, expected, _TOKENS_WEIGHED_ALIKE)
        weight = min(1.0, limits.TOKENS_LEVERAGE_MAX / size) / size
        weight *= min(1.0, limit / error) if error else 1.0
        drift = (min(error, limit) - self.spread) / min(self.seen + 2, _SPREAD_MEMORY)
        known = msgspec.structs.replace(
            self,
            gram=_add_outer(self.gram, features.counts, weight),
            moment=_add(self.moment, features.counts, weight * counted),
            seen=self.seen + 1,
            spread=max(_SPREAD_MIN, self.spread + drift),
        )
        learned = msgspec.structs.replace(known, weights=_descend(known, features.counts))
        return learned._faded() if learned.seen % limits.TOKENS_FADE_EVERY == 0 else learned

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "TokenModel":
        """Raises TokenModelError for bytes that are damaged, or that have other
        features than this version.
        """
        try:
            model = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TokenModelError(f"not a token model: {error}") from error
        vectors = (model.weights, model.anchors, model.moment, *model.gram)
        sound = (
            model.version == _VERSION
            and len(model.gram) == _SIZE
            and all(len(vector) == _SIZE for vector in vectors)
            and all(map(math.isfinite, (model.spread, *(x for row in vectors for x in row))))
            and all(0.0 <= w <= cap for w, cap in zip(model.weights, _CAPS, strict=True))
            and all(0.0 <= a <= cap for a, cap in zip(model.anchors, _CAPS, strict=True))
            and all(row[index] >= 0.0 for index, row in enumerate(model.gram))
            and model.seen >= 0
            and model.spread >= _SPREAD_MIN
        )
        if not sound:
            raise TokenModelError("a token model of another version, or damaged")
        return model

    def _faded(self) -> "TokenModel":
        """The model with half the evidence, and what is known now as the
        anchor for the other half.
        """
        gram = tuple(tuple(0.5 * x for x in row) for row in self.gram)
        moment = tuple(_dot(row, self.weights) for row in gram)
        return msgspec.structs.replace(self, anchors=self.weights, gram=gram, moment=moment)


UNTRAINED: Final = TokenModel()
"""The model for which no engine has reported anything yet."""

_decoder = msgspec.msgpack.Decoder(TokenModel)


def _tokens_max(features: Features) -> float:
    """More tokens than this no tokenizer makes of such a request."""
    return limits.TOKENS_PER_BYTE_MAX * sum(features.counts) + limits.TOKENS_BESIDE_TEXT_MAX


def _dot(left: Iterable[float], right: Iterable[float]) -> float:
    return sum(map(mul, left, right), 0.0)


def _add(vector: _Vector, counts: _Vector, factor: float) -> _Vector:
    return tuple(x + factor * count for x, count in zip(vector, counts, strict=True))


def _add_outer(gram: tuple[_Vector, ...], counts: _Vector, weight: float) -> tuple[_Vector, ...]:
    """The sum of `gram` and the features' outer product; rows of absent
    features stay as they are.
    """
    return tuple(
        _add(row, counts, weight * count) if count else row
        for row, count in zip(gram, counts, strict=True)
    )


def _descend(model: TokenModel, counts: _Vector) -> _Vector:
    """The weights after steps towards the least error, along the features that this request has."""
    weights = list(model.weights)
    for index in [index for index, count in enumerate(counts) if count] * _SWEEPS:
        row, pull = model.gram[index], _PULLS[index]
        slope = (
            model.moment[index]
            - _dot(row, weights)
            + pull * (model.anchors[index] - weights[index])
        )
        weight = weights[index] + slope / (row[index] + pull)
        weights[index] = min(max(weight, 0.0), _CAPS[index])
    return tuple(weights)
