"""`core.capacity.prefill` beside live calls through Lowtide: prompts that are not read give way at
once."""

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics
from lowtide.core.capacity.prefill import PrefillPacer
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica

RATE = limits.PREFILL_RATE_DEFAULT


def test_a_prompt_is_not_sent_before_a_live_one_is_read() -> None:
    pacer = PrefillPacer()
    pacer.live_asked(int(RATE / 10), 0.0)
    assert not pacer.may_send(1000, 0.0)
    assert pacer.opens_at_s == int(RATE / 10) / RATE
    assert pacer.may_send(1000, 0.11)


def test_the_first_byte_of_a_live_answer_ends_the_wait() -> None:
    pacer = PrefillPacer()
    pacer.live_asked(int(RATE / 10), 0.0)
    pacer.live_answered(int(RATE / 10), 0.02)
    assert pacer.may_send(1000, 0.02)


def test_every_live_prompt_is_waited_for_but_never_long() -> None:
    pacer = PrefillPacer()
    for _ in range(50):
        pacer.live_asked(int(RATE), 0.0)
    assert not pacer.may_send(1000, limits.PREFILL_WAIT_S_MAX - 0.01)
    assert pacer.may_send(1000, limits.PREFILL_WAIT_S_MAX + 0.01)


def test_what_is_not_read_is_taken_back_youngest_first() -> None:
    pacer = PrefillPacer()
    for tokens in (1_000, 2_000, 3_000):
        pacer.sent(tokens, 0.0)
    half_of_the_second = 2_000 / RATE
    assert pacer.take_unread([3_000, 2_000, 1_000], half_of_the_second) == [3_000, 1_000]


def test_what_was_read_stays() -> None:
    pacer = PrefillPacer()
    pacer.sent(1_000, 0.0)
    assert pacer.take_unread([1_000], 1_000 / RATE + 0.001) == []


def test_what_was_taken_back_is_owed_no_more() -> None:
    pacer = PrefillPacer()
    pacer.sent(3_000, 0.0)
    pacer.take_unread([3_000], 0.0)
    assert pacer.outstanding_tokens(0.0) == 0
    assert pacer.take_unread([3_000], 0.0) == []


def test_a_live_prompt_is_not_one_of_ours() -> None:
    pacer = PrefillPacer()
    pacer.live_asked(5_000, 0.0)
    assert pacer.take_unread([1_000], 0.0) == []


def test_the_engine_knows_better_what_waits() -> None:
    pacer = PrefillPacer()
    pacer.sync(4_000.0, 500.0, 0.0)
    assert pacer.outstanding_tokens(0.0) == 4_000
    assert sum(pacer.take_unread([2_000, 2_000], 0.0)) == 4_000


def test_the_engine_knows_better_what_is_read() -> None:
    pacer = PrefillPacer()
    pacer.sent(50_000, 0.0)
    pacer.sync(0.0, 700.0, 0.0)
    assert pacer.outstanding_tokens(0.0) == 700


def test_a_replica_names_the_young_calls_that_give_way() -> None:
    replica = Replica("u", frozenset({"m"}), 8, controller=WindowController())
    controller = replica.controller
    assert controller is not None
    controller.observe(EngineMetrics(running=0, waiting=0, prompt_tokens_total=0.0), [], 0.0)
    controller.pacer.active = True
    calls = []
    for age_s, tokens in ((9.0, 500), (0.2, 1_000), (0.1, 2_000)):
        replica.started(tokens=tokens, now_s=10.0 - age_s)
        calls.append(BatchCall(age_s, tokens))
    given_way = replica.live_asked(300, calls, 10.0)
    assert [place for place, _ in given_way] == [2, 1]
    assert given_way[0][1] == 2_000
    assert 0 < given_way[1][1] < 1_000, "the older one was read in part"
    assert not replica.controller.pacer.size_to_send(1000, 1000, 10.0)
    replica.live_answered(300, 10.1)
    assert replica.controller.pacer.size_to_send(1000, 1000, 10.1)


def watched(*ages_and_tokens: tuple[float, int], **more: bool) -> list[BatchCall]:
    return [
        BatchCall(age_s, tokens, prefill_done=False, **more) for age_s, tokens in ages_and_tokens
    ]


def watching() -> Replica:
    replica = Replica("u", frozenset({"m"}), 8, controller=WindowController())
    replica.streams = True
    assert replica.controller is not None
    assert not replica.watches, "nobody waits"
    replica.controller.pacer.active = True
    assert replica.watches
    return replica


def test_what_is_known_to_be_unread_gives_way_whatever_the_engine_tells() -> None:
    calls = [
        *watched((0.3, 900), (0.1, 800)),
        BatchCall(0.2, 700, prefill_done=True),
        BatchCall(0.1, 600),
    ]
    assert watching().live_asked(300, calls, 10.0) == [(0, 900), (1, 800)]


def test_the_oldest_that_are_short_may_be_read_first() -> None:
    most = limits.PREFILL_TOKENS_MIN
    calls = watched((0.1, most // 2), (0.3, most // 2), (0.2, most // 2))
    assert watching().live_asked(300, calls, 10.0) == [(0, most // 2)]


def test_a_call_that_gave_way_often_enough_stays() -> None:
    calls = watched((0.2, 5_000), (0.1, 5_000), stays=True)
    assert watching().live_asked(300, calls, 10.0) == []


def test_a_call_that_cannot_be_watched_is_owed_as_others_are() -> None:
    replica = watching()
    assert replica.controller is not None
    replica.started(tokens=9_000, now_s=0.0, watched=True)
    assert replica.controller.pacer.outstanding_tokens(100.0) == 9_000
    replica.cannot_watch(9_000, 0.0)
    assert replica.controller.pacer.outstanding_tokens(0.0) == 9_000
    assert replica.controller.pacer.outstanding_tokens(100.0) == 0


def test_a_replica_without_a_controller_keeps_its_calls() -> None:
    replica = Replica("u", frozenset({"m"}), 8)
    assert replica.live_asked(300, [BatchCall(0.0, 10)], 0.0) == []
    replica.live_answered(300, 1.0)


def test_calls_of_an_engine_that_does_not_tell_what_it_has_read_are_left_to_run() -> None:
    replica = Replica("u", frozenset({"m"}), 8, controller=WindowController())
    assert replica.controller is not None
    replica.controller.pacer.active = True
    replica.started(tokens=50_000, now_s=9.9)
    assert replica.live_asked(300, [BatchCall(0.1, 50_000)], 10.0) == []
    assert not replica.controller.pacer.size_to_send(1000, 1000, 10.0), (
        "but none follows before the live prompt is read"
    )
