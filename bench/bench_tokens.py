"""How far token estimates are from what real tokenizers count.

A model learns from 500 requests that mix English, code and Chinese; then batches of 1,000 other
requests go through the validator's own estimator: the same mix, and each kind alone, once as raw
UTF-8 and once with JSON escapes. The bound is 10 % for each batch. Shown beside it: four bytes a
token, a model that has learnt nothing, a model that never saw code, and texts that nobody learnt.

    python -m bench.bench_tokens

Tokenizers and Chinese texts are installed into .venvs/bench-tokens first; the last line is JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.token_corpus import (
    LEARNT_KINDS,
    STRANGE_KINDS,
    Request,
    make_requests,
    read_texts,
)
from bench.token_judges import is_inside, judges, prompt_tokens, run_inside
from lowtide.core.tokens.features import features_of_line
from lowtide.core.tokens.sampler import LineEstimator
from lowtide.core.tokens.token_model import UNTRAINED, TokenModel

LEARNT: Final = 500
BATCH: Final = 1_000
BOUND: Final = 0.1

Errors = dict[str, dict[str, float]]
"""By estimator, by batch: the estimate's error as a share of the truth."""


def to_line(request: Request, *, escaped: bool) -> bytes:
    line = {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": request}
    return json.dumps(line, ensure_ascii=escaped).encode()


def teach(requests: Sequence[Request], tokens: Sequence[int]) -> TokenModel:
    """Half of the lines escaped, half not, as they come."""
    model = UNTRAINED
    for number, (request, reported) in enumerate(zip(requests, tokens, strict=True)):
        line = to_line(request, escaped=number % 2 == 0)
        model = model.learned(features_of_line(line), reported)
    return model


def estimate(model: TokenModel, lines: Sequence[bytes]) -> int:
    """The sum over a file of these lines, as validation gets it."""
    estimator = LineEstimator(model)
    tokens = offset = 0
    for line in lines:
        tokens += estimator.estimate(line, offset)
        offset += len(line) + 1
    return tokens


def four_bytes_a_token(lines: Sequence[bytes]) -> int:
    around = len(to_line({}, escaped=True)) - len("{}")
    return sum((len(line) - around + 3) // 4 for line in lines)


def measure(texts: dict[str, str], count: Callable[[str], int]) -> Errors:
    """All estimators on all batches, for one tokenizer."""

    def reported(requests: Sequence[Request]) -> list[int]:
        return [prompt_tokens(count, request) for request in requests]

    mixed = make_requests(texts, LEARNT_KINDS, LEARNT, seed=1)
    without_code = make_requests(texts, ("english", "chinese"), LEARNT, seed=2)
    taught = teach(mixed, reported(mixed))
    lopsided = teach(without_code, reported(without_code))
    estimators: dict[str, Callable[[Sequence[bytes]], int]] = {
        "learnt from 500": lambda lines: estimate(taught, lines),
        "learnt without code": lambda lines: estimate(lopsided, lines),
        "learnt nothing": lambda lines: estimate(UNTRAINED, lines),
        "four bytes a token": four_bytes_a_token,
    }
    errors: Errors = {name: {} for name in estimators}
    batches = {"mixed": LEARNT_KINDS} | {kind: (kind,) for kind in (*LEARNT_KINDS, *STRANGE_KINDS)}
    for seed, (batch, kinds) in enumerate(batches.items(), start=10):
        requests = make_requests(texts, kinds, BATCH, seed)
        truth = sum(reported(requests))
        for form in ("raw", "escaped"):
            lines = [to_line(request, escaped=form == "escaped") for request in requests]
            for name, estimated in estimators.items():
                errors[name][f"{batch} {form}"] = round(estimated(lines) / truth - 1, 4)
    return errors


def cpu_cost(texts: dict[str, str], rounds: int = 5) -> dict[str, float]:
    """Microseconds of CPU to measure and to learn from one request; medians over rounds."""
    requests = make_requests(texts, LEARNT_KINDS, LEARNT, seed=3)
    lines = [to_line(request, escaped=False) for request in requests]
    features = [features_of_line(line) for line in lines]

    def learn() -> None:
        model = UNTRAINED
        for each in features:
            model = model.learned(each, round(UNTRAINED.estimate(each)) + 1)

    works = {"measure_us": lambda: [features_of_line(line) for line in lines], "learn_us": learn}
    costs = {"mean_line_bytes": statistics.mean(map(len, lines))}
    for name, work in works.items():
        times = []
        for _ in range(rounds):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        costs[name] = round(statistics.median(times) / len(lines) * 1e6, 1)
    return costs


def show(judge: str, errors: Errors) -> None:
    names = list(errors)
    print(f"\n{judge:18}" + "".join(f"{name:>22}" for name in names))
    for batch in errors[names[0]]:
        print(f"{batch:18}" + "".join(f"{errors[name][batch]:>+22.1%}" for name in names))


def main() -> int:
    """Exit code 1 when a batch of a kind that was learnt is out of bounds."""
    texts = read_texts()
    results = {judge: measure(texts, count) for judge, count in judges().items()}
    for judge, errors in results.items():
        show(judge, errors)
    worst = max(
        abs(error)
        for errors in results.values()
        for batch, error in errors["learnt from 500"].items()
        if batch.split()[0] not in STRANGE_KINDS
    )
    figures: dict[str, Any] = {"bench": "tokens", "worst": worst, "cpu": cpu_cost(texts)}
    print(f"\nworst of what was learnt: {worst:.1%}; a request: {figures['cpu']}")
    print(json.dumps(figures | {"results": results}))
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main() if is_inside() else run_inside("bench.bench_tokens"))
