"""The package with the scheduler class for vLLM, as far as it can be tried without vLLM."""

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lowtide_vllm import __version__, requirements

from lowtide.engine_sim.http.exposition import step_bound_info
from lowtide.engine_sim.scheduling.step_budget import TOLERANCE, StepLimits
from lowtide.engines.metrics.vllm import STEP_BOUND

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "integrations" / "vllm"


def config(**changed: Any) -> SimpleNamespace:
    """What the class reads of a VllmConfig."""
    scheduler = SimpleNamespace(
        policy="priority", enable_chunked_prefill=True, async_scheduling=True,
        max_num_batched_tokens=8192,
    )  # fmt: skip
    model = SimpleNamespace(runner_type="generate", is_encoder_decoder=False, is_diffusion=False)
    found = SimpleNamespace(
        model_config=model, scheduler_config=scheduler, speculative_config=None,
        kv_transfer_config=None, ec_transfer_config=None, additional_config={},
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
    )  # fmt: skip
    for name, value in changed.items():
        owner = next((o for o in (scheduler, model, found) if hasattr(o, name)), found)
        setattr(owner, name, value)
    return found


def check(
    vllm: Any, version: str = "0.32.0+cpu", *, mamba: bool = False, ahead: bool = True
) -> None:
    cache = SimpleNamespace(has_mamba_layers=mamba)
    requirements.check(vllm, cache, version, plans_ahead=ahead)


def test_the_wheel_holds_the_simulated_engines_own_decision() -> None:
    source = ROOT / "src" / "lowtide" / "engine_sim" / "scheduling"
    for name in ("step_budget.py", "step_time.py"):
        assert (PACKAGE / "src" / "lowtide_vllm" / name).resolve() == source / name


def test_the_packages_versions_agree() -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert project["entry-points"]["vllm.stat_logger_plugins"]
    readme = (PACKAGE / "README.md").read_text()
    assert all(f"vLLM {version}" in readme for version in requirements.VERSIONS)
    assert requirements.CLASS_PATH in readme and requirements.SYNC_PATH in readme


def test_a_vllm_that_fits_is_taken() -> None:
    check(config())
    check(config(async_scheduling=False), "0.32.1", ahead=False)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "0.3", "1.32.0"])
def test_another_version_is_refused_by_name(version: str) -> None:
    with pytest.raises(requirements.Unsupported, match=rf"vLLM {version}; .* works with 0\.32"):
        check(config(), version)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"policy": "fcfs"}, "needs --scheduling-policy priority"),
        ({"enable_chunked_prefill": False}, "needs chunked prefill"),
        ({"async_scheduling": False}, "is off in this engine: .*StepBoundSyncScheduler"),
        ({"speculative_config": object()}, "not tried with speculative decoding"),
        ({"kv_transfer_config": object()}, "not tried with transfer of KV"),
        ({"ec_transfer_config": object()}, "not tried with transfer of encoder"),
        ({"parallel_config": SimpleNamespace(pipeline_parallel_size=2)}, "pipeline parallelism"),
        ({"runner_type": "pooling"}, "models that do not generate"),
        ({"is_encoder_decoder": True}, "encoder and a decoder"),
        ({"is_diffusion": True}, "diffusion models"),
    ],
)
def test_what_it_was_not_tried_with_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(requirements.Unsupported, match=said):
        check(config(**changed))


def test_models_with_mamba_layers_are_refused() -> None:
    with pytest.raises(requirements.Unsupported, match="Mamba"):
        check(config(), mamba=True)


def test_settings_come_from_additional_config() -> None:
    own = requirements.limits_of(config())
    assert (own.tokens_max, own.tolerance, own.bound_s) == (8192, TOLERANCE, None)
    asked = {"lowtide": {"tolerance": 3, "itl_bound_ms": 20, "hold_max_ms": 250}, "other": 1}
    found = requirements.limits_of(config(additional_config=asked))
    assert found == replace(own, tolerance=3.0, bound_s=0.02, hold_max_s=0.25)


@pytest.mark.parametrize(
    "asked", [{"tolerances": 2}, {"tolerance": 0.5}, {"itl_bound_ms": "soon"}, ["tolerance"], 3]
)
def test_a_setting_that_is_none_is_refused(asked: object) -> None:
    with pytest.raises(requirements.Unsupported, match="additional-config"):
        requirements.limits_of(config(additional_config={"lowtide": asked}))


def test_lowtide_and_the_simulated_engine_know_the_class_by_the_name_that_it_tells() -> None:
    source = (PACKAGE / "src" / "lowtide_vllm" / "info.py").read_text()
    labels = '("engine", "version", "tolerance", "itl_bound_ms")'
    assert f'"{STEP_BOUND}"' in source and labels in source
    line = step_bound_info(StepLimits(8192))[-1]
    assert line.startswith(f"{STEP_BOUND}{{")
    assert all(f'{name}="' in line for name in ("engine", "version", "tolerance", "itl_bound_ms"))
