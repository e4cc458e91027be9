"""How live calls fared, in sentences with the target that they are judged by."""

from typing import Any

import pytest

from lowtide.api.console.replicas.live_words import all_sentence, live_sentence
from lowtide.api.objects.history import LiveCallsObject


def live(**fields: Any) -> LiveCallsObject:
    usual: dict[str, Any] = {"streams": 9, "ttft_p99_s": 0.33, "gave_way_s": 0.0, "taken_back": 0}
    return LiveCallsObject(**{**usual, **fields})


NONE = live(streams=0, ttft_p99_s=None)
CALM = "batches did not have to give way"


@pytest.mark.parametrize(
    ("met", "target_s", "words"),
    [
        (
            live(gave_way_s=28.0),
            0.5,
            "first byte within 330 ms for 99 of 100 in the last hour; within the target of 500 ms;"
            " batches gave way for 28 s.",
        ),
        (
            live(ttft_p99_s=2.0, gave_way_s=4.0, taken_back=1),
            1.0,
            "first byte within 2.0 s for 99 of 100 in the last hour; slower than the target of"
            " 1.0 s; batches gave way for 4 s, 1 of their calls was aborted and run again.",
        ),
        (
            live(),
            None,
            f"first byte within 330 ms for 99 of 100 in the last hour; no target is set; {CALM}.",
        ),
        (NONE, 1.0, f"none was streamed in the last hour; target 1.0 s; {CALM}."),
    ],
    ids=["within", "slower", "no-target", "no-stream"],
)
def test_a_sentence_says_how_live_calls_fared(
    met: LiveCallsObject, target_s: float | None, words: str
) -> None:
    assert live_sentence(met, 3600, target_s) == f"Live calls: {words}"


@pytest.mark.parametrize(
    ("targets_s", "words"),
    [
        ({"a": 1.0, "b": 1.0}, "each engine within its target"),
        ({"a": 0.2, "b": 1.0, "quiet": 0.1}, "slower than its target: a"),
        ({"quiet": 0.1}, "no target was put to the test"),
        ({}, "no target is set"),
    ],
)
def test_one_sentence_names_the_engines_that_missed_their_targets(
    targets_s: dict[str, float], words: str
) -> None:
    live_of = {"a": live(), "b": live(), "quiet": NONE}
    told = all_sentence(live(), live_of, targets_s, 660)
    assert told == (
        "Live calls of all engines: first byte within 330 ms for 99 of 100 in the last 11 min;"
        f" {words}; {CALM}."
    )
