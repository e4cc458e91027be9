"""The embedded engine's decisions. Its life with a child: tests/e2e/test_embedded_engine.py."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.engines.embedded.child import MODEL_REFUSED, PORT_TAKEN
from lowtide.engines.embedded.engine import (
    EmbeddedEngine,
    EngineStartError,
    GiveUp,
    Restart,
    after_exit,
    threads_for,
)
from lowtide.engines.embedded.process import CRASHED, ChildExit

CRASH = ChildExit(CRASHED, "status -11", served_s=None)
REFUSAL = ChildExit(MODEL_REFUSED, "magic is wrong", served_s=None)


def test_a_refused_model_is_given_up_at_once() -> None:
    assert after_exit(REFUSAL, 0, has_served=False) == GiveUp(MODEL_REFUSED, "magic is wrong")


@pytest.mark.parametrize("code", [CRASHED, PORT_TAKEN])
def test_an_engine_that_never_served_is_given_up_after_some_tries(code: str) -> None:
    end = ChildExit(code, "why", served_s=None)
    failures = 0
    for _ in range(limits.EMBEDDED_START_ATTEMPTS - 1):
        decision = after_exit(end, failures, has_served=False)
        assert isinstance(decision, Restart)
        failures = decision.failures
    assert after_exit(end, failures, has_served=False) == GiveUp(code, "why")


@given(failures=st.integers(0, 10_000), end=st.sampled_from([CRASH, REFUSAL]))
def test_an_engine_that_has_served_is_restarted_for_ever_within_the_bound(
    failures: int, end: ChildExit
) -> None:
    decision = after_exit(end, failures, has_served=True)
    assert isinstance(decision, Restart)
    assert 0 < decision.delay_s <= limits.EMBEDDED_RESTART_BACKOFF_S_MAX


def test_the_delay_doubles_from_one_crash_to_the_next() -> None:
    delays = [
        decision.delay_s
        for failures in range(4)
        if isinstance(decision := after_exit(CRASH, failures, has_served=True), Restart)
    ]
    assert delays == [limits.EMBEDDED_RESTART_BACKOFF_S * 2**n for n in range(4)]


def test_a_child_that_served_long_starts_the_back_off_from_the_bottom() -> None:
    steady = ChildExit(CRASHED, "killed", served_s=limits.EMBEDDED_STEADY_S)
    assert after_exit(steady, 9, has_served=True) == Restart(limits.EMBEDDED_RESTART_BACKOFF_S, 1)


@pytest.mark.parametrize(
    ("model_bytes", "cpus", "threads"),
    [(400_000, 64, 1), (4 << 30, 16, 8), (4 << 30, 1, 1), (4 << 30, 3, 1)],
)
def test_a_toy_model_gets_one_thread_and_a_real_one_half_the_cpus(
    model_bytes: int, cpus: int, threads: int
) -> None:
    assert threads_for(model_bytes, cpus) == threads


async def test_a_missing_model_is_told_without_starting_anything(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    engine = EmbeddedEngine(path, model_id="m", log_path=tmp_path / "engine.log")
    with pytest.raises(EngineStartError, match=str(path)) as caught:
        await engine.start()
    assert caught.value.code == "model_not_found"
    assert not (tmp_path / "engine.log").exists()
    await engine.aclose()


async def test_a_file_that_is_no_model_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>")
    engine = EmbeddedEngine(path, model_id="m", log_path=tmp_path / "engine.log")
    with pytest.raises(EngineStartError, match=r"page\.gguf is not a GGUF") as caught:
        await engine.start()
    assert caught.value.code == "model_not_gguf"
