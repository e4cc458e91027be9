"""How live calls fared beside batches, in sentences that an operator can judge. Pure.

Called by `engine_views`. The figures are those of `GET /v1/admin/engines/{name}/history` and the
target is `load.live_target_s` of `GET /v1/admin/engines`.
"""

from collections.abc import Mapping

from lowtide.api.console.formats import duration, latency
from lowtide.api.objects.history import LiveCallsObject


def live_sentence(live: LiveCallsObject, seconds: float, target_s: float | None) -> str:
    """What live calls of one engine met in the last `seconds`, beside their target (in seconds;
    None: none is set)."""
    return f"Live calls: {_met(live, seconds)}; {_judged(live, target_s)}; {_gave_way(live)}."


def all_sentence(
    together: LiveCallsObject,
    live_of: Mapping[str, LiveCallsObject],
    targets_s: Mapping[str, float],
    seconds: float,
) -> str:
    """The same of all engines. `targets_s`: by the name of an engine, of those that have one."""
    judged = [name for name in targets_s if live_of[name].ttft_p99_s is not None]
    missed = sorted(name for name in judged if not _is_within(live_of[name], targets_s[name]))
    if not targets_s:
        words = "no target is set"
    elif not judged:
        words = "no target was put to the test"
    elif missed:
        words = f"slower than its target: {', '.join(missed)}"
    else:
        words = "each engine within its target"
    return f"Live calls of all engines: {_met(together, seconds)}; {words}; {_gave_way(together)}."


def _met(live: LiveCallsObject, seconds: float) -> str:
    time = "in the last hour" if round(seconds / 60) == 60 else f"in the last {duration(seconds)}"
    if live.ttft_p99_s is None:
        return f"none was streamed {time}"
    return f"first byte within {latency(live.ttft_p99_s)} for 99 of 100 {time}"


def _judged(live: LiveCallsObject, target_s: float | None) -> str:
    if target_s is None:
        return "no target is set"
    if live.ttft_p99_s is None:
        return f"target {latency(target_s)}"
    word = "within" if _is_within(live, target_s) else "slower than"
    return f"{word} the target of {latency(target_s)}"


def _is_within(live: LiveCallsObject, target_s: float) -> bool:
    return live.ttft_p99_s is None or live.ttft_p99_s <= target_s


def _gave_way(live: LiveCallsObject) -> str:
    if not live.gave_way_s and not live.taken_back:
        return "batches did not have to give way"
    words = f"batches gave way for {duration(live.gave_way_s)}"
    if live.taken_back:
        were = "was" if live.taken_back == 1 else "were"
        words += f", {live.taken_back:,} of their calls {were} aborted and run again"
    return words
