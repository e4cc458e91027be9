"""Counts of attempts by replica, model and outcome."""

import pytest

from lowtide.core.faults.outcome import Failed, Interrupted, Outcome, Rejected, Succeeded, Throttled
from lowtide.core.reporting.tally import Tallies, code_of
from lowtide.core.usage import NO_USAGE, Usage


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Succeeded(200, b"{}", NO_USAGE), "ok"),
        (Throttled("the engine answered 503"), "throttled"),
        (Interrupted("refused"), "unreachable"),
        (Failed("timeout", "too slow"), "timeout"),
        (Rejected("invalid_request", "no"), "invalid_request"),
    ],
)
def test_each_outcome_has_one_word(outcome: Outcome, code: str) -> None:
    assert code_of(outcome) == code


def test_counts_are_kept_by_replica_and_model() -> None:
    tallies = Tallies()
    usage = Usage(input_tokens=10, cached_tokens=4, output_tokens=5)
    for _ in range(3):
        tallies.of("a:1", "m").add_success(usage)
    tallies.of("a:1", "n").add_failure(Throttled("full"), is_retried=True)
    tallies.of("b:1", "m").add_failure(Rejected("bad", "no"), is_retried=False)
    found = {(replica, model): tally for replica, model, tally in tallies.all()}
    assert set(found) == {("a:1", "m"), ("a:1", "n"), ("b:1", "m")}
    good = found["a:1", "m"]
    assert (good.succeeded, good.input_tokens, good.cached_tokens) == (3, 30, 12)
    assert good.output_tokens == 15
    assert (found["a:1", "n"].failed, found["a:1", "n"].retries) == ({"throttled": 1}, 1)
    assert found["b:1", "m"].failed == {"bad": 1}
    assert found["b:1", "m"].retries == 0
