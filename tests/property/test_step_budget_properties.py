"""The decision about batch work beside live calls, for any engine, load and settings."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide.engine_sim.scheduling.step_budget import BatchDecode, StepLimits, decide
from lowtide.engine_sim.scheduling.step_time import TRAINED_STEPS, StepShape, StepTimeModel

TOLERANCE = 1e-9


class KnownTimes(StepTimeModel):
    """An engine whose costs are known: seconds of a step, per token, decode, KV token and pair."""

    def __init__(self, step: float, token: float, decode: float, read: float, pair: float) -> None:
        super().__init__()
        self.steps, self.tokens_seen = TRAINED_STEPS, 16_000
        self.costs = [step, 1e3 * token, *[0.0] * 7, 1e2 * decode, 1e5 * read, 1e6 * pair]


cost = st.floats(0, 1e-3)
engines = st.builds(
    KnownTimes, cost.map(lambda s: 10 * s), cost, cost, st.floats(0, 1e-6), st.floats(0, 1e-7)
)
limits = st.builds(
    StepLimits,
    tokens_max=st.integers(1, 8192),
    tolerance=st.floats(1, 6),
    bound_s=st.none() | st.floats(1e-3, 0.2),
    stretch=st.floats(1, 1.5),
    hold_max_s=st.floats(0.05, 2),
)
shapes = st.builds(
    lambda decodes, chunk, context: StepShape(decodes + chunk, decodes, context, chunk * 50.0),
    st.integers(0, 64), st.integers(0, 4000), st.integers(0, 100_000),
)  # fmt: skip
decodes = st.lists(st.builds(BatchDecode, st.integers(1, 5000), st.floats(0, 3)), max_size=40)
prompts = st.lists(st.tuples(st.integers(1, 6000), st.integers(0, 4000)), max_size=8)


@given(decodes, st.floats(0, 9), engines, limits)
def test_without_a_live_call_the_step_is_the_engines_own(
    batch: list[BatchDecode], idle_s: float, model: StepTimeModel, bounds: StepLimits
) -> None:
    decision = decide(None, batch, idle_s, model, bounds)
    assert decision.is_unchanged and not decision.held


@given(shapes, decodes, prompts, engines, limits)
def test_the_prediction_stays_within_the_limit_but_for_what_is_overdue(
    live: StepShape,
    batch: list[BatchDecode],
    asked: list[tuple[int, int]],
    model: StepTimeModel,
    bounds: StepLimits,
) -> None:
    fresh = [BatchDecode(one.context, 0.0) for one in batch]
    if bounds.hold_max_s <= 2 * model.predict(live):
        return  # every decode is due in each step
    budget = decide(live, fresh, 0.0, model, bounds).prompts
    assert budget is not None
    ran = budget.shape
    for wanted, context in asked:
        granted = budget.grant(wanted, context)
        assert 0 <= granted <= wanted
        if granted:
            ran = ran.with_chunk(granted, context)
    assert budget.shape == ran
    limit_s = max(bounds.step_s(live, model), bounds.stretch * model.predict(live))
    assert model.predict(ran) <= limit_s * (1 + TOLERANCE)
    assert ran.tokens <= max(live.tokens, bounds.tokens_max)


@given(shapes, decodes, engines, limits)
def test_live_work_keeps_its_whole_part_of_the_step(
    live: StepShape, batch: list[BatchDecode], model: StepTimeModel, bounds: StepLimits
) -> None:
    decision = decide(live, batch, 0.0, model, bounds)
    assert decision.prompts is not None
    running = [one for place, one in enumerate(batch) if place not in decision.held]
    shape = decision.prompts.shape
    assert shape.decodes - live.decodes == len(running)
    assert shape.context - live.context == sum(one.context for one in running)
    assert shape.tokens - len(running) == live.tokens and shape.pairs == live.pairs


@given(shapes, decodes, engines, limits)
def test_those_that_sat_out_longest_run_first(
    live: StepShape, batch: list[BatchDecode], model: StepTimeModel, bounds: StepLimits
) -> None:
    held = decide(live, batch, 0.0, model, bounds).held
    waited = [batch[place].idle_s for place in held]
    ran = [one.idle_s for place, one in enumerate(batch) if place not in held]
    assert not waited or not ran or max(waited) <= min(ran)


@given(shapes, st.lists(st.integers(1, 5000), min_size=1, max_size=30), engines, limits)
def test_no_decode_sits_out_for_longer_than_is_said(
    live: StepShape, contexts: list[int], model: StepTimeModel, bounds: StepLimits
) -> None:
    """Whatever the load, with steps that take as long as predicted: one of them more at most."""
    ran_at = [0.0] * len(contexts)
    now = 0.0
    for _ in range(60):
        batch = [
            BatchDecode(context, now - at) for context, at in zip(contexts, ran_at, strict=True)
        ]
        decision = decide(live, batch, 0.0, model, bounds)
        assert decision.prompts is not None
        for place in range(len(batch)):
            if place not in decision.held:
                ran_at[place] = now
        step_s = max(1e-3, model.predict(decision.prompts.shape))
        for place, at in enumerate(ran_at):
            assert now - at <= bounds.hold_max_s + TOLERANCE, place
        now += step_s
        if step_s > bounds.hold_max_s:
            break  # the step itself lasts longer than anything may sit out


def test_late_decodes_wait_for_a_step_that_live_prompts_do_not_fill() -> None:
    model = KnownTimes(0.006, 18e-6, 0.0, 40e-9, 0.0)
    bounds = StepLimits(8192, bound_s=0.012)
    late = [BatchDecode(4_000, 0.3)] * 40
    generating = StepShape(10, 10, 7_000)
    fitting = [BatchDecode(4_000, 0.0)] * 40
    held = [
        len(decide(live, batch, 0.0, model, bounds).held)
        for live in (generating, generating.with_chunk(2_000, 0))
        for batch in (fitting, late)
    ]
    assert held[0] == held[1] < 40, "the room under the bound is theirs, late or not"
    assert held[2:] == [40, 40]


def test_one_step_in_200_is_left_to_the_live_calls_that_generate() -> None:
    model = KnownTimes(0.006, 18e-6, 0.0, 40e-9, 0.0)
    bounds = StepLimits(8192, bound_s=0.012)
    generating, batch = StepShape(10, 10, 7_000), [BatchDecode(1_000, 0.01)] * 5
    alone = []
    for steps in range(1_000, 1_400):
        model.steps = steps
        decision = decide(generating, batch, 0.0, model, bounds)
        assert decision.prompts is not None
        if len(decision.held) == 5 and not decision.prompts.grant(2_000, 0):
            alone.append(steps)
    assert alone == [1_000, 1_200]


@given(shapes, st.integers(1, 6000), engines, limits)
def test_a_batch_prompt_gets_tokens_in_time_wherever_live_work_leaves_any(
    live: StepShape, wanted: int, model: StepTimeModel, bounds: StepLimits
) -> None:
    decision = decide(live, [], bounds.hold_max_s, model, bounds)
    assert decision.prompts is not None
    left = bounds.tokens_max - live.tokens
    granted = decision.prompts.grant(wanted, 0)
    enough = min(bounds.chunk_min, wanted)
    assert (granted >= enough) if left >= enough else granted == 0


@given(st.lists(st.tuples(shapes, st.floats(1e-4, 1)), max_size=80), shapes, st.integers(1, 500))
def test_a_learned_prediction_never_falls_when_work_is_added(
    steps: list[tuple[StepShape, float]], shape: StepShape, more: int
) -> None:
    model = StepTimeModel()
    for observed, seconds in steps:
        model.observe(observed, seconds)
    before = model.predict(shape)
    assert before >= 0
    assert model.predict(shape.with_chunk(more, 100)) >= before
    assert model.predict(shape.with_decode(more)) >= before
