"""Rates and events of a batch over HTTP."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from batch_env import CHAT, Env, open_bench

from lowtide import limits
from lowtide.core.history.replica_history import (
    ReplicaPart,
    ReplicaRow,
    bucket_begin,
    first_byte_bucket,
)
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def create(env: Env, requests: int = 3) -> str:
    body = {"input_file_id": env.upload(requests).id, "endpoint": CHAT}
    return str(env.post(body).json["id"])


def rates(env: Env, batch_id: str) -> list[dict[str, Any]]:
    answer = env.http_api.ask("GET", f"/v1/batches/{batch_id}/history")
    assert (answer.status, answer.json["object"]) == (200, "batch.history")
    assert answer.json["batch_id"] == batch_id
    data: list[dict[str, Any]] = answer.json["data"]
    return data


def events(env: Env, batch_id: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = env.http_api.ask("GET", f"/v1/batches/{batch_id}/events").json[
        "data"
    ]
    return data


def test_rates_add_up_to_the_counts_whether_or_not_somebody_looked(env: Env) -> None:
    batch_id = create(env)
    assert rates(env, batch_id) == [], "nothing of it has begun"
    env.plan()
    env.http_api.clock.shift += timedelta(seconds=20)
    env.settle(batch_id, ok=[1, 2])
    store, clock = env.http_api.store, env.http_api.clock
    for is_looked_at in (False, True):
        if is_looked_at:
            env.http_api.run(store.history.advance([batch_id], clock.now()))
        found = rates(env, batch_id)
        assert sum(each["completed"] for each in found) == 2
        assert sum(each["output_tokens"] for each in found) == 6
        starts = [each["at"] for each in found]
        assert all(after - before == 5 for before, after in pairwise(starts))
    busy = next(each for each in found if each["completed"])
    assert busy["requests_per_s"] == round(busy["completed"] / busy["seconds"], 6)
    assert busy["tokens_per_s"] == round(
        (busy["input_tokens"] + busy["output_tokens"]) / busy["seconds"], 6
    )
    env.settle(batch_id, bad=[3])
    env.assemble()
    found = rates(env, batch_id)
    assert (sum(each["completed"] for each in found), sum(each["failed"] for each in found)) == (
        2,
        1,
    )


def test_what_a_cancelled_batch_never_ran_is_no_failure_of_its_history(env: Env) -> None:
    batch_id = create(env)
    env.plan()
    env.settle(batch_id, ok=[1], bad=[2])
    env.http_api.run(env.http_api.store.history.advance([batch_id], env.http_api.clock.now()))
    env.post({}, f"/v1/batches/{batch_id}/cancel")
    env.settle(batch_id)
    env.assemble()
    found = rates(env, batch_id)
    assert sum(each["completed"] for each in found) == 1
    assert sum(each["failed"] for each in found) == 1


def test_events_tell_who_did_what_and_when(env: Env) -> None:
    batch_id = create(env)
    env.plan()
    for verb in ("pause", "resume", "cancel"):
        assert env.post({}, f"/v1/batches/{batch_id}/{verb}").status == 200
    env.post({}, f"/v1/admin/batches/{batch_id}/pause")
    found = events(env, batch_id)
    kinds = [each["kind"] for each in found]
    assert kinds == ["created", "started", "paused", "resumed", "cancel_asked"]
    assert {each["object"] for each in found} == {"batch.event"}
    assert found[1]["detail"] == "3 requests"
    assert [each["at"] for each in found] == sorted(each["at"] for each in found)


def test_a_batch_that_there_is_not_has_no_history(env: Env) -> None:
    for part in ("history", "events", "parts"):
        answer = env.http_api.ask("GET", f"/v1/batches/batch_none/{part}")
        assert (answer.status, answer.error["code"]) == (404, "batch_not_found")


def test_parts_tell_what_has_run(env: Env) -> None:
    batch_id = create(env)
    path = f"/v1/batches/{batch_id}/parts"
    assert env.http_api.ask("GET", path).json["data"] == []
    env.plan()
    env.settle(batch_id, ok=[1], bad=[2])
    answer = env.http_api.ask("GET", path).json
    assert (answer["object"], answer["batch_id"]) == ("batch.parts", batch_id)
    assert answer["data"] == [
        {"first": 0, "count": 3, "settled": 2, "failed": 1, "state": "failed", "place": None}
    ]
    assert not answer["in_input_order"]


def test_parts_of_an_ended_batch_are_its_lines_in_their_order(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_PARTS_MAX", 2)
    batch_id = create(env)
    env.plan()
    env.settle(batch_id, ok=[3, 1], bad=[2])
    env.assemble()
    answer = env.http_api.ask("GET", f"/v1/batches/{batch_id}/parts").json
    assert answer["in_input_order"]
    assert answer["data"] == [
        {"first": 0, "count": 1, "settled": 1, "failed": 0, "state": "done", "place": 0},
        {"first": 1, "count": 2, "settled": 2, "failed": 1, "state": "failed", "place": 0},
    ]


# ---- engines


def report_engine(env: Env, name: str, ago: timedelta = timedelta(minutes=1)) -> None:
    now = env.http_api.clock.now()
    report = WorkerReport(
        worker_id="w",
        seen_at=now,
        ttl_s=3600.0,
        replicas=(ReplicaReport(name=name, models=("m",)),),
    )
    env.http_api.run(env.http_api.store.worker_reports.write(report, forget_before=now))
    part = ReplicaPart(
        batch_calls=6,
        input_tokens=200,
        output_tokens=100,
        first_bytes={first_byte_bucket(0.25): 2},
        seen_s=20.0,
        window_s=160.0,
        in_flight_s=100.0,
        gave_way_s=4.0,
        taken_back=1,
    )
    rows = [ReplicaRow(name, bucket_begin(now - ago), part)]
    for writer in ("p", "q"):
        env.http_api.run(env.http_api.store.history.write_replicas(writer, rows))


@pytest.mark.parametrize("name", ["rack-1", "10.0.0.7:8001", "gpu/history"])
def test_an_engine_tells_what_all_processes_saw_of_it(env: Env, name: str) -> None:
    report_engine(env, name)
    path = f"/v1/admin/engines/{quote(name)}/history"
    answer = env.http_api.ask("GET", path)
    assert (answer.status, answer.json["object"], answer.json["name"]) == (
        200,
        "engine.history",
        name,
    )
    data = answer.json["data"]
    assert len(data) == 121
    busy = [each for each in data if each["batch_requests"]]
    assert len(busy) == 1
    assert (busy[0]["batch_requests"], busy[0]["live_streams"]) == (12, 4)
    assert busy[0]["tokens_per_s"] == 20.0
    assert busy[0]["live_ttft_p50_s"] == pytest.approx(0.25, rel=0.2)
    assert (busy[0]["window"], busy[0]["in_flight"]) == (8.0, 5.0)
    assert (busy[0]["gave_way_s"], busy[0]["taken_back"]) == (8.0, 2)
    assert data[0]["window"] is None
    met = answer.json["live"]
    assert (met["streams"], met["gave_way_s"], met["taken_back"]) == (4, 8.0, 2)
    assert met["ttft_p99_s"] == busy[0]["live_ttft_p99_s"]
    longer = env.http_api.ask("GET", f"{path}?hours=36").json["data"]
    assert len(longer) <= 301
    assert sum(each["batch_requests"] for each in longer) == 12


def test_an_engine_that_there_is_not_and_hours_beyond_what_is_kept_are_refused(env: Env) -> None:
    missing = env.http_api.ask("GET", "/v1/admin/engines/none/history")
    assert (missing.status, missing.error["code"]) == (404, "not_found")
    report_engine(env, "rack-1")
    for hours in ("0", "37", "x"):
        answer = env.http_api.ask("GET", f"/v1/admin/engines/rack-1/history?hours={hours}")
        assert answer.status == 400


def test_the_engines_tell_what_they_did_together_in_the_last_minute(env: Env) -> None:
    report_engine(env, "rack-1", timedelta())
    totals = env.http_api.ask("GET", "/v1/admin/engines").json["totals"]
    assert (totals["engines"], totals["ready"], totals["waiting_requests"]) == (1, 1, 0)
    assert 12 / 90 <= totals["requests_per_s"] <= 12 / 60
    assert 600 / 90 <= totals["tokens_per_s"] <= 600 / 60
    assert (totals["live_streams"], totals["gave_way_s"]) == (4, 8.0)
    assert totals["live_ttft_p99_s"] == pytest.approx(0.25, rel=0.2)
    batch_id = create(env, 5)
    env.plan()
    assert env.http_api.ask("GET", "/v1/admin/engines").json["totals"]["waiting_requests"] == 5
    env.settle(batch_id, ok=[1])
    page = env.http_api.ask("GET", "/", None, {"accept": "text/html"}).body.decode()
    assert ">1 of 1</a>" in page
    assert "batch gave way" in page


# ---- the week


def test_the_forecast_tells_what_waits_and_what_was_learned(env: Env) -> None:
    assert env.http_api.ask("GET", "/v1/admin/forecast").json["data"] == []
    batch_id = create(env)
    env.plan()
    env.http_api.clock.shift += timedelta(minutes=1)  # what is foreseen is worked out again
    answer = env.http_api.ask("GET", "/v1/admin/forecast").json
    (model,) = answer["data"]
    assert (model["object"], model["model"]) == ("model.forecast", "test-model")
    assert (model["rate"], model["hours"]) == (None, []), "nothing is learned, so nothing foreseen"
    (course,) = model["batches"]
    assert (course["batch_id"], course["end_at"]) == (batch_id, None)
    assert course["verdict"] == "unknown"
    assert course["work_left"] == model["work_left"] > 0
