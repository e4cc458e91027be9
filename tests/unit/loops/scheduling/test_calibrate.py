"""loops/scheduling/calibrate.py: what is learnt from, what is saved, and what other workers
learnt."""

import json

import pytest
from worker_env import MODEL, WorkerEnv

from lowtide import limits
from lowtide.core.faults.outcome import Reply
from lowtide.core.tokens.features import features_of_line
from lowtide.core.tokens.token_model import UNTRAINED, TokenModel
from lowtide.loops.scheduling.calibrate import Calibrations
from lowtide.ports.store import Store, StoreUnavailable
from testkit.faults import Faulty
from testkit.manual_clock import ManualClock

LINE = json.dumps({"body": {"model": "m", "messages": [{"content": "潮" * 100}]}}).encode()
NOW = ManualClock().now()


def taught(calibrations: Calibrations, times: int, tokens: int = 250, model: str = "m") -> None:
    for _ in range(times):
        calibrations.finished(model, LINE, tokens, 1.0)


def estimate(calibrations: Calibrations, model: str = "m") -> float:
    return calibrations.models.get(model, UNTRAINED).estimate(features_of_line(LINE))


@pytest.fixture
def faulty(store: Store) -> Faulty:
    return Faulty(store.calibrations, ("load", "save"))


async def test_every_request_counts_until_enough_is_known_then_one_in_a_while(
    store: Store,
) -> None:
    calibrations = Calibrations(store.calibrations)
    for number in range(limits.TOKENS_LEARN_ALL + 100):
        calibrations.finished("m", LINE, 250, number * 1e-6)
    assert calibrations.models["m"].seen == limits.TOKENS_LEARN_ALL + 1
    for number in range(1_000):
        calibrations.finished("m", LINE, 250, 10 + number * limits.TOKENS_LEARN_GAP_S / 10)
    assert 95 <= calibrations.models["m"].seen - limits.TOKENS_LEARN_ALL <= 105


async def test_an_answer_without_usage_teaches_nothing_and_takes_no_turn(store: Store) -> None:
    calibrations = Calibrations(store.calibrations)
    calibrations.finished("m", LINE, 0, 1.0)
    assert dict(calibrations.models) == {}


async def test_a_restart_keeps_what_was_learnt(store: Store) -> None:
    before = Calibrations(store.calibrations)
    taught(before, 100)
    assert estimate(before) == pytest.approx(250, rel=0.02)
    again_at = await before.tick(NOW)
    assert again_at is not None
    assert (again_at - NOW).total_seconds() == limits.CALIBRATION_SAVE_S
    after = Calibrations(store.calibrations)
    await after.load()
    assert after.models == before.models


async def test_only_what_changed_is_saved(faulty: Faulty) -> None:
    calibrations = Calibrations(faulty)
    taught(calibrations, 1, model="a")
    taught(calibrations, 1, model="b")
    await calibrations.tick(NOW)
    assert faulty.calls["save"] == 2
    taught(calibrations, 1, model="b")
    await calibrations.tick(NOW)
    await calibrations.tick(NOW)
    assert faulty.calls["save"] == 3


async def test_a_save_that_failed_is_made_up_for(store: Store, faulty: Faulty) -> None:
    calibrations = Calibrations(faulty)
    taught(calibrations, 5)
    faulty.fail("save", StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable):
        await calibrations.tick(NOW)
    await calibrations.tick(NOW)
    stored = await store.calibrations.load()
    assert TokenModel.from_bytes(stored["m"]) == calibrations.models["m"]


async def test_workers_learn_from_each_other(store: Store) -> None:
    idle, busy = Calibrations(store.calibrations), Calibrations(store.calibrations)
    taught(idle, 2, tokens=90, model="own")
    taught(busy, 100)
    await busy.tick(NOW)
    await idle.tick(NOW)
    assert idle.models["m"] == busy.models["m"]
    assert idle.models["own"].seen == 2


async def test_what_cannot_be_read_is_learnt_anew(store: Store) -> None:
    await store.calibrations.save("m", b"of another version", NOW)
    calibrations = Calibrations(store.calibrations)
    await calibrations.load()
    assert dict(calibrations.models) == {}
    taught(calibrations, 3)
    await calibrations.tick(NOW)
    assert TokenModel.from_bytes((await store.calibrations.load())["m"]).seen == 3


async def test_the_dispatcher_tells_of_successes_and_of_nothing_else(env: WorkerEnv) -> None:
    reported: list[tuple[str, bytes, int]] = []
    env.dispatcher._on_answer = lambda *answer: reported.append(answer[:3])
    await env.batch(6)
    env.engine.script.append(Reply(400, b'{"error": {"message": "too long"}}'))
    env.engine.script.append(Reply(503, b""))
    env.engine.otherwise = Reply(200, b'{"choices": [{}], "usage": {"prompt_tokens": 7}}')
    await env.work_off()
    assert [(model, tokens) for model, _, tokens in reported] == [(MODEL, 7)] * 5
    assert all(json.loads(line)["body"]["messages"] for _, line, _ in reported)
