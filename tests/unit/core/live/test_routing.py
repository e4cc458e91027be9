"""The choice of a replica: load first, then the beginning of the prompt."""

from collections import Counter

from lowtide.core.live.routing import choose_replica
from lowtide.limits import LIVE_LOAD_TOLERANCE

URLS = [f"http://10.0.0.{number}:8000/v1" for number in range(4)]
IDLE = [0.0] * 4


def prefixes(count: int) -> list[bytes]:
    return [b'[{"role":"user","content":"question %d' % number for number in range(count)]


def test_the_same_beginning_goes_to_the_same_replica_whatever_the_order_of_replicas() -> None:
    for prefix in prefixes(50):
        chosen = URLS[choose_replica(URLS, IDLE, prefix)]
        turned = URLS[::-1]
        assert turned[choose_replica(turned, IDLE, prefix)] == chosen


def test_different_beginnings_spread_over_all_replicas() -> None:
    counts = Counter(choose_replica(URLS, IDLE, prefix) for prefix in prefixes(4_000))
    assert len(counts) == 4
    assert all(800 < count < 1_200 for count in counts.values())


def test_a_replica_that_goes_moves_only_its_own_prompts() -> None:
    left = URLS[:-1]
    for prefix in prefixes(200):
        before = URLS[choose_replica(URLS, IDLE, prefix)]
        if before in left:
            assert left[choose_replica(left, IDLE[:-1], prefix)] == before


def test_a_busy_replica_loses_its_prompts_beyond_the_tolerance() -> None:
    for prefix in prefixes(20):
        home = choose_replica(URLS, IDLE, prefix)
        within, beyond = list(IDLE), list(IDLE)
        within[home] = LIVE_LOAD_TOLERANCE
        beyond[home] = LIVE_LOAD_TOLERANCE + 0.01
        assert choose_replica(URLS, within, prefix) == home
        assert choose_replica(URLS, beyond, prefix) != home


def test_a_call_without_a_prompt_goes_to_the_least_loaded() -> None:
    assert choose_replica(URLS, [0.3, 0.2, 0.1, 0.2], b"") == 2


def test_one_replica_is_the_choice_whatever_its_load() -> None:
    assert choose_replica(URLS[:1], [99.0], b"x") == 0
