"""core/capacity/window.py: how many batch calls may be in flight."""

import pytest

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.window import WindowController

INF = float("inf")


class Ground:
    """A controller with a window that is always used, polled twice a second."""

    def __init__(self, controller: WindowController) -> None:
        self.controller = controller
        self.now_s = 100.0

    def calls(self) -> list[BatchCall]:
        return [BatchCall(1.0, 100)] * self.controller.window

    def poll(
        self,
        metrics: EngineMetrics | None = EngineMetrics(),  # noqa: B008 - frozen
        polls: int = 1,
        live: LiveSeen = LiveSeen(),  # noqa: B008 - frozen
    ) -> int:
        for _ in range(polls):
            self.now_s += limits.CONTROL_POLL_S
            self.controller.observe(metrics, self.calls(), self.now_s, live)
        return self.controller.window


def busy(own: int, live: int = 0, **rest: object) -> EngineMetrics:
    return EngineMetrics(running=own + live, waiting=0, **rest)  # type: ignore[arg-type]


def pauses(polls: int, *, slow: int) -> tuple[tuple[float, float], ...]:
    """A hundred gaps between tokens in each poll, as the engine counts them: `slow` ones of 0.4 s,
    and the others short."""
    return ((0.03, (100.0 - slow) * polls), (0.4, 100.0 * polls), (INF, 100.0 * polls))


def test_an_operators_window_of_a_silent_engine_is_that_window() -> None:
    ground = Ground(WindowController(64, window_start=64, is_automatic=False))
    assert ground.poll(polls=50) == 64
    assert ground.controller.bound == "operator"


def test_an_automatic_window_of_an_engine_that_tells_nothing_grows_to_the_default() -> None:
    ground = Ground(WindowController())
    assert ground.controller.window == limits.WINDOW_START
    assert ground.poll(polls=6) == limits.WINDOW_DEFAULT
    assert ground.controller.bound == "default"


def test_an_automatic_window_is_what_the_kv_memory_holds() -> None:
    ground = Ground(WindowController(2048))
    for _ in range(500):
        ground.controller.finished(300, 0, 200, 4.0)
    window = ground.poll(busy(0, kv_capacity_tokens=100_000, kv_used=0.5), polls=20)
    assert ground.controller.bound == "kv"
    assert window == pytest.approx(0.92 * 100_000 / (300 + 200 / 2), rel=0.06)


def test_what_prompts_share_is_not_held_twice() -> None:
    ground = Ground(WindowController(4096))
    for _ in range(500):
        ground.controller.finished(1000, 900, 200, 4.0)
    window = ground.poll(busy(0, kv_capacity_tokens=100_000), polls=20)
    assert window == pytest.approx(0.92 * 100_000 / (100 + 100), rel=0.06)


def test_long_answers_under_way_narrow_the_window_before_any_has_finished() -> None:
    controller = WindowController(2048, window_start=512)
    calls = [BatchCall(60.0, 200)] * 512
    metrics = EngineMetrics(running=512, waiting=0, kv_capacity_tokens=430_000)
    controller.observe(metrics, calls, 1.0)
    assert controller.bound == "kv"
    assert controller.window < 300


def test_a_window_that_is_not_used_does_not_grow() -> None:
    controller = WindowController(1000)
    for poll in range(20):
        controller.observe(EngineMetrics(running=3), [BatchCall(1.0, 10)] * 3, float(poll))
    assert controller.window == limits.WINDOW_START


def test_preemptions_cut_the_window_once_in_five_seconds() -> None:
    ground = Ground(WindowController(100, window_start=100))
    for preempted in range(1, 11):
        ground.poll(busy(100, preemptions_total=preempted))
    assert ground.controller.window == 85
    assert ground.controller.bound == "congestion"


def test_memory_that_is_full_and_a_queue_of_our_own_cut_the_window() -> None:
    for metrics in (busy(100, kv_used=0.98), EngineMetrics(running=40, waiting=60)):
        ground = Ground(WindowController(100, window_start=100))
        assert ground.poll(metrics) == 85


def test_short_prompts_wait_for_the_seats_that_answers_of_one_length_leave_together() -> None:
    """With fewer, seats stay empty for as long as the next calls take to come."""
    ground = Ground(WindowController(100, window_start=100))
    queued = EngineMetrics(running=60, waiting=40)
    assert ground.poll(queued) == 100
    assert ground.poll(EngineMetrics(running=60, waiting=40, kv_used=0.95)) == 85


def test_prompts_that_are_more_than_one_step_of_the_engine_do_not_wait_there() -> None:
    controller = WindowController(100, window_start=100)
    calls = [BatchCall(1.0, limits.PREFILL_TOKENS_MAX // 40 + 1)] * 100
    controller.observe(EngineMetrics(running=60, waiting=40), calls, 100.0)
    assert (controller.window, controller.bound) == (85, "congestion")


def test_no_prompts_wait_at_the_engine_shortly_after_a_live_call() -> None:
    ground = Ground(WindowController(100, window_start=100))
    assert ground.poll(busy(60, live=1), live=LiveSeen(in_flight=1)) == 100
    assert ground.poll(EngineMetrics(running=60, waiting=40)) == 85


def test_after_a_cut_the_window_grows_by_four_percent_a_poll() -> None:
    ground = Ground(WindowController(1000, window_start=100))
    ground.poll(busy(100, kv_used=0.98))
    assert ground.poll(busy(85), polls=5) == pytest.approx(85 * 1.04**5, abs=4)


def test_slow_tokens_beside_live_calls_cut_the_window_each_second() -> None:
    ground = Ground(WindowController(100, window_start=100, itl_slo_s=0.05))
    slow = [(0.03, 0.0), (0.06, 0.0), (INF, 0.0)]
    for poll in range(9):
        slow = [(0.03, 0.0), (0.06, 100.0 * poll), (INF, 100.0 * poll)]
        own = ground.controller.window
        ground.poll(busy(own, live=5, itl_buckets=tuple(slow)))
    assert ground.controller.window == pytest.approx(100 * 0.85**4, abs=2)
    assert ground.controller.bound == "live"
    assert ground.controller.gives_way


def test_slow_tokens_disturb_nobody_without_live_calls() -> None:
    ground = Ground(WindowController(100, window_start=100))
    for polls in range(1, 10):
        ground.poll(busy(100, itl_buckets=pauses(polls, slow=100)))
    assert ground.controller.window == 100


def test_rare_stutters_tighten_the_budget_of_prompts_and_leave_the_window() -> None:
    ground = Ground(WindowController(100, window_start=100))
    for polls in range(1, 11):
        pauses_so_far = pauses(polls, slow=3)
        ground.poll(busy(100, itl_buckets=pauses_so_far), live=LiveSeen(in_flight=5))
    assert ground.controller.window == 100
    assert ground.controller.pacer.budget < 0.5 * limits.PREFILL_TOKENS_MAX
    assert ground.controller.pacer.active


def test_a_live_call_that_waits_cuts_the_window_of_an_engine_that_tells_nothing() -> None:
    ground = Ground(WindowController(64, window_start=64, is_automatic=False))
    ground.poll(polls=20, live=LiveSeen(in_flight=3, waiting=2))
    assert ground.controller.window < 20
    ground.poll(polls=60)
    assert ground.controller.window == 64


def test_calls_of_others_count_once_two_polls_agree() -> None:
    ground = Ground(WindowController(50, window_start=50))
    ground.poll(busy(50, live=9))
    assert ground.controller.live.calls == 0
    ground.poll(busy(50, live=7))
    assert ground.controller.live.calls == 7


def test_where_live_calls_were_a_tenth_of_memory_and_some_seats_stay_free() -> None:
    ground = Ground(WindowController(4096))
    for _ in range(500):
        ground.controller.finished(300, 0, 200, 4.0)
    metrics = busy(0, kv_capacity_tokens=100_000, kv_used=0.5, seats_max=10_000)
    without = ground.poll(metrics, polls=20)
    ground.poll(metrics, live=LiveSeen(in_flight=1))
    assert ground.poll(metrics, polls=20) == pytest.approx(0.9 * without, rel=0.02)
    seats = Ground(WindowController(4096))
    seats.poll(busy(0, seats_max=256), live=LiveSeen(in_flight=1))
    assert seats.poll(busy(0, seats_max=256), polls=20) == 256 - limits.LIVE_SEATS_MIN


def test_a_small_engine_keeps_an_eighth_of_its_seats_for_live_calls() -> None:
    ground = Ground(WindowController())
    assert ground.poll(busy(0, seats_max=8), polls=5) == 8
    ground.poll(busy(0, seats_max=8), live=LiveSeen(in_flight=1))
    assert ground.poll(busy(0, seats_max=8), polls=5) == 6


def test_a_silent_engine_loses_half_its_window_at_each_poll_down_to_the_least() -> None:
    ground = Ground(WindowController(100, window_start=100))
    ground.poll(busy(100))
    assert ground.poll(None, polls=limits.STALE_POLLS) == 100
    assert not ground.controller.is_stale
    assert ground.poll(None) == 50
    assert ground.controller.bound == "silence"
    assert ground.poll(None, polls=20) == limits.WINDOW_MIN


def test_an_engine_that_tells_again_gets_its_window_back_quickly() -> None:
    ground = Ground(WindowController(100, window_start=100))
    ground.poll(busy(100))
    ground.poll(None, polls=20)
    assert ground.poll(busy(4), polls=10) == 100


def test_a_sleeping_engine_is_sent_nothing_and_woken_starts_again() -> None:
    ground = Ground(WindowController(100, window_start=100))
    assert ground.poll(busy(0, asleep=True)) == 0
    assert ground.controller.bound == "asleep"
    assert ground.poll(None, polls=20) == 0
    assert ground.poll(busy(0)) > 0


def test_places_of_calls_that_were_taken_back_stay_free() -> None:
    ground = Ground(WindowController(100, window_start=100))
    ground.poll(busy(100))
    ground.controller.revoked(30, 100, ground.now_s)
    assert ground.controller.window == 70
    assert ground.controller.bound == "live"


def test_an_engine_that_repeats_itself_while_calls_run_is_taken_to_be_silent() -> None:
    ground = Ground(WindowController(100, window_start=100))
    frozen = busy(100, kv_used=0.4, preemptions_total=0, generation_tokens_total=77)
    assert ground.poll(frozen, polls=limits.FROZEN_POLLS + limits.STALE_POLLS + 1) == 100
    assert ground.poll(frozen) == 50
    assert ground.controller.bound == "silence"
    reported = busy(50, kv_used=0.41, preemptions_total=0, generation_tokens_total=78)
    assert ground.poll(reported) > 50


def test_an_idle_engine_may_repeat_itself() -> None:
    controller = WindowController(100, window_start=100)
    for poll in range(100):
        controller.observe(busy(0, kv_used=0.0, preemptions_total=0), [], poll / 2)
    assert controller.window == 100


def test_a_window_does_not_outgrow_what_is_known_of_lengths() -> None:
    ground = Ground(WindowController(4096))
    metrics = busy(0, kv_capacity_tokens=10_000_000, kv_used=0.1)
    assert ground.poll(metrics, polls=60) <= limits.WINDOW_UNKNOWN_MAX + 1
    for _ in range(100):
        ground.controller.finished(300, 0, 200, 4.0)
    grown = ground.poll(metrics, polls=60)
    assert limits.WINDOW_UNKNOWN_MAX < grown <= 100 * limits.WINDOW_PER_KNOWN + 1


def test_a_window_is_not_cut_again_before_the_last_cut_shows() -> None:
    ground = Ground(WindowController(100, window_start=100))
    full = busy(100, kv_capacity_tokens=100_000, kv_used=0.99)
    ground.controller.observe(full, [BatchCall(1.0, 100)] * 100, 0.0)
    ground.controller.observe(full, [BatchCall(1.0, 100)] * 100, 10.0)
    cut = ground.controller.window
    assert cut < 100
    for poll in range(20):
        ground.controller.observe(full, [BatchCall(1.0, 100)] * 100, 20.0 + 10 * poll)
    assert ground.controller.window == cut


def test_a_wave_of_answers_that_has_just_ended_makes_no_call_look_fast() -> None:
    controller = WindowController(2048, window_start=100)
    reported = busy(100, generation_tokens_total=0, kv_capacity_tokens=100_000)
    controller.observe(reported, [BatchCall(1.0, 100)] * 100, 1.0)
    reported = busy(1, generation_tokens_total=1500, kv_capacity_tokens=100_000)
    controller.observe(reported, [BatchCall(1.0, 100)] * 100, 1.5)
    assert controller.work.pace == pytest.approx(30.0)
