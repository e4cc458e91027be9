"""The learned window against anything that answers and time-outs may be."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.capacity.latency_window import LatencyWindow
from lowtide.core.faults.timeouts import TimeoutBlame
from tests.unit.core.capacity.queue_models import Engine, servers

latency = st.floats(0.0, 1e4)
events = st.lists(
    st.tuples(st.sampled_from(["answer", "answer", "answer", "idle", "late"]), latency, latency),
    max_size=300,
)


@given(events, st.integers(1, 256), st.floats(0.1, 1e4))
def test_the_width_keeps_its_bounds_whatever_comes(
    story: list[tuple[str, float, float]], width_max: int, timeout_s: float
) -> None:
    window = LatencyWindow(width_max, timeout_s=timeout_s)
    now_s = 0.0
    for kind, took_s, pause_s in story:
        now_s += pause_s
        before = window.width
        if kind == "late":
            window.timed_out(now_s - took_s, now_s)
            assert window.width <= before
        else:
            in_flight = window.width if kind == "answer" else window.width - 1
            window.answered(now_s - took_s, now_s, 1.0 + took_s, in_flight)
        assert 1 <= window.width <= width_max
        assert window.width <= 4 * before


@given(st.integers(1, 12), st.floats(0.03, 40.0), st.integers(1, 64))
def test_no_engine_with_slots_loses_a_line_or_computes_one_twice(
    slots: int, call_s: float, ceiling: int
) -> None:
    run = Engine(servers(slots), (call_s,), timeout_s=600.0, window=ceiling).work(120)
    assert run.lost == []
    assert run.timeouts == 0
    assert run.calls == 120
    assert run.widest <= max(4, 4 * slots)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), max_size=50),
    st.integers(0, 10**6),
    st.floats(0, 100),
)
def test_a_first_time_out_in_company_is_never_held_against_a_request(
    answers: list[tuple[int, float]], tokens: int, sent_at_s: float
) -> None:
    blame = TimeoutBlame()
    for size, at_s in answers:
        blame.succeeded(size, at_s)
    blame.crowded_at_s = sent_at_s
    assert not blame.is_own(tokens, sent_at_s, 0)
