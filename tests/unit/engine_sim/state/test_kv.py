"""The prefix cache: what is found, what is evicted, and that no block is lost."""

from lowtide.engine_sim.state.kv import KvCache
from lowtide.engine_sim.state.requests import Piece, SimRequest

BLOCK = 16


def ask(*pieces: Piece, salt: str | None = None, output: int = 16) -> SimRequest:
    return SimRequest(str(pieces), pieces, output, salt=salt)


def compute(kv: KvCache, request: SimRequest) -> int:
    """Admit a request and compute its whole prompt; how many tokens were found."""
    hits, found, _ = kv.find(request)
    kv.admit(request, hits)
    kv.take(kv.blocks_for(request.prompt_tokens) - found)
    kv.publish(request, request.prompt_tokens)
    return found * BLOCK


def release(kv: KvCache, request: SimRequest) -> None:
    kv.release(request, request.prompt_tokens, kv.blocks_for(request.prompt_tokens))


def passed(kv: KvCache, request: SimRequest) -> int:
    """As `compute`, and gone again."""
    found = compute(kv, request)
    release(kv, request)
    return found


def test_only_full_blocks_are_found() -> None:
    kv = KvCache(16 * 100)
    assert passed(kv, ask(("s", 40), ("a", 30))) == 0
    assert passed(kv, ask(("s", 40), ("b", 30))) == 32


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    kv = KvCache(16 * 100)
    passed(kv, ask(("s", 64)))
    assert passed(kv, ask(("s", 64))) == 48
    assert passed(kv, ask(("s", 65))) == 64


def test_a_shorter_and_a_longer_part_of_a_segment_agree_in_the_shorter() -> None:
    kv = KvCache(16 * 100)
    passed(kv, ask(("s", 200)))
    assert passed(kv, ask(("s", 100), ("x", 50))) == 96
    assert passed(kv, ask(("s", 90), ("x", 50))) == 80


def test_the_same_piece_after_another_beginning_is_another() -> None:
    kv = KvCache(16 * 100)
    passed(kv, ask(("a", 32), ("document", 64)))
    assert passed(kv, ask(("b", 32), ("document", 64))) == 0
    assert passed(kv, ask(("a", 36), ("document", 64))) == 32


def test_what_is_being_computed_can_be_found_in_the_same_step() -> None:
    kv = KvCache(16 * 100)
    first = ask(("s", 64), ("a", 5))
    compute(kv, first)
    assert compute(kv, ask(("s", 64), ("b", 5))) == 64


def test_a_salt_keeps_tenants_apart() -> None:
    kv = KvCache(16 * 100)
    passed(kv, ask(("s", 64), ("a", 5), salt="one"))
    assert passed(kv, ask(("s", 64), ("b", 5), salt="two")) == 0
    assert passed(kv, ask(("s", 64), ("c", 5))) == 0
    assert passed(kv, ask(("s", 64), ("d", 5), salt="one")) == 64


def test_free_blocks_are_found_until_they_are_needed_least_recently_used_first() -> None:
    kv = KvCache(16 * 12)
    passed(kv, ask(("old", 64)))
    passed(kv, ask(("new", 64)))
    passed(kv, ask(("old", 64)))  # used again: now the other one is the oldest
    # Three blocks were never used, and one is the copy of old's last that was computed again.
    compute(kv, ask(("large", 16 * 6)))
    assert kv.find(ask(("new", 65)))[1] == 2
    assert kv.find(ask(("old", 65)))[1] == 4


def test_a_request_is_evicted_from_its_tail() -> None:
    kv = KvCache(16 * 10)
    passed(kv, ask(("s", 160)))
    for length in range(1, 10):
        compute(kv, ask((f"other {length}", 1)))
        assert kv.find(ask(("s", 161)))[1] == 10 - length


def test_blocks_in_use_by_two_are_free_when_both_are_gone() -> None:
    kv = KvCache(16 * 20)
    one, two = ask(("s", 64), ("a", 16)), ask(("s", 64), ("b", 16))
    compute(kv, one)
    compute(kv, two)
    assert kv.free == 20 - 6
    release(kv, one)
    assert kv.free == 20 - 5
    release(kv, two)
    assert kv.free == 20


def test_a_generated_answer_can_be_found_by_the_next_turn() -> None:
    kv = KvCache(16 * 100)
    turn = SimRequest("turn", (("q", 30),), 70, output_segment="answer")
    compute(kv, turn)
    kv.take(kv.blocks_for(99) - 2)
    kv.release(turn, 99, kv.blocks_for(99))
    assert passed(kv, ask(("q", 30), ("answer", 70), ("q2", 50))) == 96


def test_two_copies_computed_side_by_side_cost_two_and_both_come_back() -> None:
    kv = KvCache(16 * 20)
    one, two = ask(("s", 64), ("a", 16)), ask(("s", 64), ("b", 16))
    for request in (one, two):  # both looked before either was computed
        kv.admit(request, [])
        kv.take(5)
    kv.publish(one, 80)
    kv.publish(two, 80)
    assert kv.free == 10
    release(kv, one)
    release(kv, two)
    assert kv.free == 20
    assert kv.find(ask(("s", 64), ("b", 20)))[1] == 5


def test_without_prefix_caching_nothing_is_found() -> None:
    kv = KvCache(16 * 20, finds_prefixes=False)
    passed(kv, ask(("s", 64)))
    assert passed(kv, ask(("s", 65))) == 0
    assert kv.free == 20


def test_nothing_is_found_after_forgetting() -> None:
    kv = KvCache(16 * 20)
    passed(kv, ask(("s", 64)))
    kv.forget()
    assert passed(kv, ask(("s", 65))) == 0
