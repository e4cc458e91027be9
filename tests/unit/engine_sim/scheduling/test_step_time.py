"""What is learned of an engine's pace, from steps whose true time is known."""

import ast
import random
import sys
from pathlib import Path

import pytest

from lowtide.engine_sim.profiles import PROFILES, StepLoad
from lowtide.engine_sim.scheduling import step_budget, step_time
from lowtide.engine_sim.scheduling.step_time import TRAINED_STEPS, StepShape, StepTimeModel


def shapes(count: int, seed: int = 1) -> list[StepShape]:
    """Steps as they come beside live traffic: few decodes or many, a chunk in every other one."""
    rng = random.Random(seed)
    found = []
    for place in range(count):
        shape = StepShape()
        for _ in range(rng.randint(1, 120)):
            shape = shape.with_decode(rng.randint(100, 3000))
        if place % 2:
            shape = shape.with_chunk(rng.randint(16, 2000), rng.choice((0, 0, 1000)))
        found.append(shape)
    return found


def true_s(profile: str, shape: StepShape) -> float:
    load = StepLoad(
        tokens=shape.tokens,
        decodes=shape.decodes,
        prefills=int(shape.pairs > 0),
        sampled=shape.decodes,
        context=shape.context,
        pairs=shape.pairs,
    )
    return PROFILES[profile].step_ms(load) * 1e-3


def errors(model: StepTimeModel, profile: str) -> list[float]:
    return sorted(
        abs(model.predict(shape) / true_s(profile, shape) - 1) for shape in shapes(200, seed=2)
    )


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_measured_profile_is_learned_within_five_percent(profile: str) -> None:
    model, noise = StepTimeModel(), random.Random(3)
    for shape in shapes(400):
        model.observe(shape, true_s(profile, shape) * noise.lognormvariate(0, 0.03))
    missed = errors(model, profile)
    assert missed[180] < 0.05 and missed[-1] < 0.12


def test_predictions_are_used_only_after_enough_steps() -> None:
    model = StepTimeModel()
    assert model.predict(StepShape(100, 1, 1, 0.0)) == 0.0
    for shape in shapes(TRAINED_STEPS - 1):
        model.observe(shape, true_s("8b-h100", shape))
    assert not model.is_trained
    model.observe(StepShape(), 1.0)  # nothing was computed
    assert not model.is_trained
    model.observe(StepShape(8, 8, 800, 0.0), 0.01)
    assert model.is_trained


def test_single_steps_that_stalled_change_next_to_nothing() -> None:
    calm, stalled = StepTimeModel(), StepTimeModel()
    for place, shape in enumerate(shapes(400)):
        seconds = true_s("8b-h100", shape)
        calm.observe(shape, seconds)
        stalled.observe(shape, 20 * seconds if place % 50 == 49 and place > 100 else seconds)
    assert errors(stalled, "8b-h100")[180] < errors(calm, "8b-h100")[180] + 0.02


def test_an_engine_that_becomes_slower_is_believed() -> None:
    model = StepTimeModel()
    for shape in shapes(400):
        model.observe(shape, true_s("8b-h100", shape))
    for shape in shapes(1_200, seed=4):
        model.observe(shape, 1.5 * true_s("8b-h100", shape))
    shape = shapes(1, seed=5)[0]
    assert model.predict(shape) > 1.3 * true_s("8b-h100", shape)


def test_what_vllm_shares_imports_the_standard_library_and_itself_alone() -> None:
    """Its wheel for vLLM has nothing else of Lowtide."""
    shared = {"step_budget", "step_time"}
    for module in (step_budget, step_time):
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.module in shared
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "") in sys.stdlib_module_names | {"collections.abc"}
            elif isinstance(node, ast.Import):
                assert all(name.name in sys.stdlib_module_names for name in node.names)
