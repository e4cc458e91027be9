"""The window and the guard against anything that an engine may tell."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.output_lengths import OutputLengths
from lowtide.core.capacity.preemption import PreemptionPolicy
from lowtide.core.capacity.window import WindowController

count = st.none() | st.integers(0, 5000)
total = st.none() | st.floats(0, 1e9)
readings = st.builds(
    EngineMetrics,
    running=count,
    waiting=count,
    kv_used=st.none() | st.floats(0, 1),
    kv_capacity_tokens=st.none() | st.integers(1, 10**7),
    seats_max=st.none() | st.integers(1, 5000),
    preemptions_total=total,
    prompt_tokens_total=total,
    generation_tokens_total=total,
    cached_tokens_total=total,
    itl_buckets=st.just(())
    | st.tuples(st.floats(0, 100), st.floats(0, 100)).map(
        lambda pair: ((0.05, pair[0]), (float("inf"), pair[0] + pair[1]))
    ),
    asleep=st.sampled_from([False] * 9 + [True]),
    bounds_steps=st.booleans(),
)
seen = st.builds(
    LiveSeen, in_flight=st.integers(0, 500), waiting=st.integers(0, 9), tokens_each=st.just(500.0)
)
answers = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1000))
polls = st.lists(
    st.tuples(
        st.none() | readings, st.booleans(), seen, st.floats(0, 30), st.lists(answers, max_size=3)
    ),
    max_size=60,
)


@given(polls, st.integers(1, limits.WINDOW_MAX), st.booleans())
def test_the_window_keeps_its_bounds_and_silence_never_widens_it(
    story: list[tuple[EngineMetrics | None, bool, LiveSeen, float, list[tuple[int, int, float]]]],
    window_max: int,
    is_automatic: bool,
) -> None:
    controller = WindowController(window_max, is_automatic=is_automatic)
    now_s = 0.0
    for metrics, is_used, live, elapsed_s, finished in story:
        now_s += elapsed_s
        for tokens, output, took_s in finished:
            controller.finished(tokens, tokens // 2, output, took_s)
        before = controller.window
        in_flight = controller.window if is_used else controller.window // 3
        controller.observe(metrics, [BatchCall(now_s / 2, 500)] * in_flight, now_s, live)
        assert 0 <= controller.window <= window_max
        assert controller.window > 0 or controller.metrics.asleep
        assert 0.0 <= controller.live.load <= 1.0
        assert 0.0 <= controller.live.kv_reserve <= limits.LIVE_SHARE_MAX
        pacer = controller.pacer
        assert limits.PREFILL_TOKENS_MIN <= pacer.budget <= limits.PREFILL_TOKENS_MAX
        assert pacer.outstanding_tokens(now_s) >= 0.0
        if metrics is None:
            assert controller.window <= before


@given(
    st.lists(
        st.tuples(
            st.floats(0, 200),  # seconds until the next poll
            st.integers(0, 40),  # calls in flight
            st.integers(0, 5000),  # tokens of each prompt
            st.floats(0, 5000),  # tokens of each answer so far
            st.integers(0, 30),  # live calls that wait
            st.integers(0, 100_000),  # tokens finished since
        ),
        max_size=60,
    )
)
def test_giving_way_never_costs_more_than_its_share(
    story: list[tuple[float, int, int, float, int, int]],
) -> None:
    guard = PreemptionPolicy()
    now_s = 0.0
    work: list[tuple[float, float]] = []
    losses: list[tuple[float, float]] = []
    for elapsed_s, flying, prompt, output, waiting, finished in story:
        now_s += elapsed_s
        guard.finished(finished, now_s)
        work.append((now_s, finished))
        calls = [BatchCall(float(n), prompt) for n in range(flying)]
        live = LiveSeen(waiting, waiting, 800.0)
        chosen = guard.revoke(None, calls, [output] * flying, live, 0.0, now_s)
        assert len(set(chosen)) == len(chosen)
        losses.append((now_s, len(chosen) * (prompt + output)))
        since = now_s - limits.REVOKED_SPAN_S
        lost = sum(tokens for at_s, tokens in losses if at_s >= since)
        done = sum(tokens for at_s, tokens in work if at_s >= since)
        # ... of losses that are just being forgotten the guard still counts the work
        forgotten = limits.REVOKED_SPAN_S * 0.05 + 1e-6
        late = sum(tokens for at_s, tokens in losses if since - forgotten <= at_s < since)
        allowed = limits.REVOKED_SHARE_MAX * (done + lost + late + flying * (prompt + output))
        assert not chosen or lost <= allowed + 1e-6


@given(
    st.lists(st.integers(0, 10**6), max_size=50),
    st.lists(st.floats(0, 10**6), max_size=50),
)
def test_shares_of_lengths_sum_to_one(ended: list[int], ages: list[float]) -> None:
    known = OutputLengths()
    for length in ended:
        known.finished(length)
    shares = known._distribution(ages)
    assert all(share >= 0 for _, share in shares)
    assert not shares or abs(sum(share for _, share in shares) - 1.0) < 1e-6
