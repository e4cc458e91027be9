"""Pages of a batch's lines: while it runs, when it has ended, and one line by its id."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_env import CHAT, Env, open_bench

from lowtide import limits


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def running_batch(env: Env, requests: int) -> str:
    file = env.upload(requests)
    batch_id: str = env.post({"input_file_id": file.id, "endpoint": CHAT}).json["id"]
    env.plan()
    return batch_id


def lines(env: Env, batch_id: str, query: str = "") -> Any:
    return env.http_api.ask("GET", f"/v1/batches/{batch_id}/lines{query}").json


def ids(page: Any) -> list[str]:
    return [each["result"]["custom_id"] for each in page["data"]]


def test_lines_of_an_ended_batch_come_in_input_order_with_their_requests(env: Env) -> None:
    batch_id = running_batch(env, 5)
    env.settle(batch_id, ok=[4, 1, 3], bad=[5, 2])
    env.assemble()
    page = lines(env, batch_id)
    assert ids(page) == ["r-1", "r-3", "r-4"]
    assert [each["request"]["custom_id"] for each in page["data"]] == ids(page)
    assert [(each["place"], each["line"]) for each in page["data"]] == [(0, 1), (1, 3), (2, 4)]
    assert (page["total"], page["has_more"], page["in_input_order"]) == (3, False, True)
    assert ids(lines(env, batch_id, "?kind=errors")) == ["r-2", "r-5"]
    assert ids(lines(env, batch_id, "?first=1&limit=1")) == ["r-3"]
    assert lines(env, batch_id, "?first=1&limit=1")["has_more"]
    assert lines(env, batch_id, "?first=3")["data"] == []


def test_lines_of_a_running_batch_come_as_they_finished(env: Env) -> None:
    batch_id = running_batch(env, 6)
    assert lines(env, batch_id)["data"] == []
    env.settle(batch_id, ok=[4, 1])
    env.settle(batch_id, ok=[3], bad=[2])
    page = lines(env, batch_id)
    assert ids(page) == ["r-4", "r-1", "r-3"]
    assert (page["total"], page["has_more"], page["in_input_order"]) == (3, False, False)
    assert all(each["request"] is None for each in page["data"])
    assert ids(lines(env, batch_id, "?first=1&limit=1")) == ["r-1"]


def test_a_line_of_a_running_batch_is_found_while_its_results_are_few_enough_to_search(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = running_batch(env, 6)
    env.settle(batch_id, ok=[4, 1], bad=[2])
    found = lines(env, batch_id, "?custom_id=r-1")
    assert (ids(found), found["data"][0]["place"], found["total"]) == (["r-1"], 1, 2)
    assert lines(env, batch_id, "?custom_id=r-2")["data"] == []
    assert ids(lines(env, batch_id, "?custom_id=r-2&kind=errors")) == ["r-2"]
    monkeypatch.setattr(limits, "FIND_BYTES_MAX", 1)
    refused = env.http_api.ask("GET", f"/v1/batches/{batch_id}/lines?custom_id=r-4")
    assert (refused.status, refused.error["param"]) == (400, "custom_id")
    assert "once the batch has ended" in refused.error["message"]


def test_a_line_is_found_by_its_custom_id(env: Env) -> None:
    batch_id = running_batch(env, 5)
    env.settle(batch_id, ok=[4, 1, 3], bad=[5, 2])
    env.assemble()
    assert ids(lines(env, batch_id, "?custom_id=r-3")) == ["r-3"]
    assert lines(env, batch_id, "?custom_id=r-2")["data"] == []
    assert ids(lines(env, batch_id, "?custom_id=r-2&kind=errors")) == ["r-2"]


def test_requests_of_a_deleted_input_are_null(env: Env) -> None:
    batch_id = running_batch(env, 2)
    env.settle(batch_id, ok=[1, 2])
    env.assemble()
    input_id = env.http_api.ask("GET", f"/v1/batches/{batch_id}").json["input_file_id"]
    assert env.http_api.ask("DELETE", f"/v1/files/{input_id}").status == 200
    page = lines(env, batch_id)
    assert ids(page) == ["r-1", "r-2"]
    assert [each["request"] for each in page["data"]] == [None, None]


def test_wrong_queries_and_unknown_batches_are_refused(env: Env) -> None:
    batch_id = running_batch(env, 1)
    for query in ("?limit=0", "?limit=101", "?first=-1", "?kind=all"):
        assert env.http_api.ask("GET", f"/v1/batches/{batch_id}/lines{query}").status == 400, query
    assert env.http_api.ask("GET", "/v1/batches/batch_x/lines").error["code"] == "batch_not_found"
