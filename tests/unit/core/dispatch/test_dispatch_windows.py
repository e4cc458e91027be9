"""core/dispatch/dispatch.py and core/dispatch/replica.py where a controller has its say about the
window."""

from dispatch_cases import BUSY, OK, REFUSED, add, lease, replica, take_all

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import Succeeded
from lowtide.core.usage import Usage

LIVE = LiveSeen(in_flight=3)


def controlled(url: str = "http://a", window: int = 64, *, spares_long: bool = False) -> Replica:
    controller = WindowController(window, window_start=window)
    return Replica(url, frozenset({"m"}), window, controller=controller, spares_long=spares_long)


def poll(one: Replica, metrics: EngineMetrics | None, now_s: float, live: LiveSeen = LIVE) -> None:
    assert one.controller is not None
    one.controller.observe(metrics, [BatchCall(1.0, 100)] * one.in_flight, now_s, live)
    one.resize(now_s)


def test_the_controllers_window_is_kept() -> None:
    core, one = Dispatch(), controlled()
    add(core, 128)
    assert len(take_all(core, one)) == 64
    poll(one, EngineMetrics(running=64, waiting=0, kv_used=0.99), 1.0)
    assert int(one.window) == 54
    assert not one.has_room(1.0)


def test_refusals_shrink_the_window_that_is_in_force_and_answers_give_it_back() -> None:
    one = controlled()
    poll(one, EngineMetrics(running=0, seats_max=20), 1.0, LiveSeen())
    one.throttled(2.0)
    assert one.window == 20 * limits.THROTTLE_SHRINK
    for _ in range(2000):
        one.answered(3.0)
    assert one.window == 20


def test_a_sleeping_engine_has_no_room() -> None:
    core, one = Dispatch(), controlled()
    add(core, 5)
    poll(one, EngineMetrics(asleep=True), 1.0)
    assert take_all(core, one, 1.0) == []


def test_beside_live_traffic_prompts_wait_until_those_before_them_were_read() -> None:
    core, one = Dispatch(), controlled()
    core.add(lease(), [(n, n + 1, b"x") for n in range(20)], [2000] * 20)
    poll(one, EngineMetrics(), 1.0)
    sent = take_all(core, one, 1.0)
    assert 1 <= len(sent) < 6
    wake_s = core.next_wake_s([one], 1.0)
    assert wake_s is not None
    assert 1.0 < wake_s <= 1.0 + limits.PREFILL_WAIT_S_MAX
    assert core.ready["m"] == 20 - len(sent)
    assert len(take_all(core, one, 3.0)) > 0
    assert [request.index for request in sent] == list(range(len(sent)))


def test_without_live_traffic_they_do_not() -> None:
    core, one = Dispatch(), controlled()
    core.add(lease(), [(n, n + 1, b"x") for n in range(20)], [20_000] * 20)
    poll(one, EngineMetrics(), 1.0, LiveSeen())
    assert len(take_all(core, one, 1.0)) == 20


def test_long_prompts_pass_by_a_replica_with_live_traffic_where_another_is_there_for_them() -> None:
    core = Dispatch()
    core.add(lease(), [(n, n + 1, b"x") for n in range(6)], [9000, 10, 9000, 10, 10, 9000])
    spared, relaxed = controlled("http://a", spares_long=True), controlled("http://b")
    poll(spared, EngineMetrics(), 1.0)
    assert {request.tokens for request in take_all(core, spared, 1.0)} == {10}
    assert len(take_all(core, relaxed, 1.0)) == 3


def test_they_go_there_again_once_the_live_traffic_is_over() -> None:
    core, spared = Dispatch(), controlled(spares_long=True)
    core.add(lease(), [(0, 1, b"x")], [9000])
    poll(spared, EngineMetrics(), 1.0)
    assert take_all(core, spared, 1.0) == []
    poll(spared, EngineMetrics(), 2.0 + limits.LIVE_RECENT_S, LiveSeen())
    assert len(take_all(core, spared, 2.0 + limits.LIVE_RECENT_S)) == 1


def test_an_abandoned_request_that_is_put_back_is_the_next_of_its_chunk() -> None:
    core, one = Dispatch(), replica(window=3)
    run = add(core, 9)
    taken = take_all(core, one)
    core.abandon(taken[2], one, 0.0)
    core.put_back(taken[2])
    assert core.ready["m"] == 7
    assert core.take(one, 0.0) is taken[2]
    assert taken[2].tries == 0
    core.abandon(taken[2], one, 0.0)
    core.remove(run.key)
    core.put_back(taken[2])
    assert core.ready["m"] == 0


def test_at_the_end_of_the_queue_replicas_share_what_is_left() -> None:
    core = Dispatch()
    pair = [controlled("http://a"), controlled("http://b")]
    add(core, 40)
    core.spread_remaining(pair, 0.0, is_dry=True)
    assert [len(take_all(core, one)) for one in pair] == [20, 20]
    core.spread_remaining(pair, 0.0, is_dry=False)
    assert [one.drain_share for one in pair] == [None, None]


def test_a_replica_alone_or_without_a_controller_is_not_held_back() -> None:
    core, one, other = Dispatch(), controlled("http://a"), controlled("http://b")
    add(core, 40)
    other.throttled(0.0, 100.0)
    core.spread_remaining([one, other], 0.0, is_dry=True)
    assert one.drain_share is None
    plain = [replica("http://c", window=40), replica("http://d", window=40)]
    core.spread_remaining(plain, 0.0, is_dry=True)
    assert len(take_all(core, plain[0])) == 40


def test_answers_teach_the_controller_once_the_engine_tells_something() -> None:
    core, one = Dispatch(), controlled()
    add(core, 128)
    answer = Succeeded(200, b"{}", Usage(input_tokens=300, output_tokens=50))
    assert one.controller is not None
    core.settle(take_all(core, one)[0], one, answer, 5.0, 0.5)
    assert one.controller.work.lengths.count == 0
    poll(one, EngineMetrics(running=1), 6.0)
    request = core.take(one, 7.0)
    assert request is not None
    core.settle(request, one, answer, 9.0, 0.5)
    assert one.controller.work.lengths.count == 1
    assert one.controller.work.token_gap_s == 2.0 / 50


def test_refused_and_throttled_calls_teach_it_nothing() -> None:
    core, one = Dispatch(), controlled()
    add(core, 128)
    poll(one, EngineMetrics(running=1), 1.0)
    for now_s, outcome in ((100.0, BUSY), (200.0, REFUSED), (300.0, OK)):
        request = core.take(one, now_s)
        assert request is not None
        core.settle(request, one, outcome, now_s, 0.5)
    assert one.controller is not None
    assert one.controller.work.lengths.count == 1
