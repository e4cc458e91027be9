"""`lowtide batches` and `lowtide.Client` steer a batch of a real HTTP API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_env import CHAT, Env, open_bench

import lowtide
from lowtide.cli.app import main


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    monkeypatch.chdir(tmp_path)
    with open_bench(tmp_path, monkeypatch) as running:
        monkeypatch.setenv("LOWTIDE_SERVER", running.http_api.url)
        monkeypatch.delenv("LOWTIDE_API_KEY", raising=False)
        yield running


def ended(env: Env, *, ok: list[int], bad: list[int]) -> str:
    body = {"input_file_id": env.upload(len(ok) + len(bad)).id, "endpoint": CHAT}
    batch_id = str(env.post(body).json["id"])
    env.plan()
    env.settle(batch_id, ok=ok, bad=bad)
    env.assemble()
    return batch_id


def test_failed_lines_are_retried_and_their_results_joined(
    env: Env, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ended(env, ok=[1, 3], bad=[2, 4])
    assert main(["batches", "errors", first]) == 0
    title, row = (line.split("\t") for line in said(capsys).splitlines())
    assert title == ["lines", "code", "group", "message", "e.g."]
    assert row[:2] + row[3:] == ["2", "400", "no", "line 2, r-2"]
    assert main(["batches", "retry", first, "--group", "of-none"]) == 2
    assert "is asked for" in capsys.readouterr().err
    command = ["batches", "retry", first, "--only", "failed", "--group", row[2], "--window", "2h"]
    assert main([*command, "--priority", "3"]) == 0
    retry_id = said(capsys).strip()
    env.plan()
    env.settle(retry_id, ok=[2], bad=[4])
    env.assemble()
    target = tmp_path / "all.jsonl"
    results = ["batches", "results", first, "--with-retries", "-o"]
    assert main([*results, str(target)]) == 1, "a line is still without success"
    assert "3 results, 1 error" in said(capsys)
    assert ids(target) == ["r-1", "r-2", "r-3"]
    assert ids(target.with_suffix(".errors.jsonl")) == ["r-4"]
    assert main(["batches", "retry", retry_id, "--json"]) == 0
    again = json.loads(said(capsys))
    assert again["retry_of"] == retry_id
    env.plan()
    env.settle(again["id"], ok=[4])
    env.assemble()
    assert main([*results, str(target), "--json"]) == 0
    found = json.loads(said(capsys))
    assert (found["output_lines"], found["errors"]) == (4, None)
    assert not target.with_suffix(".errors.jsonl").exists(), "that of the time before is outdated"
    assert main([*results, "-"]) == 0
    assert said(capsys) == target.read_text()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command wrote; the server of this process logs to the same place."""
    lines = capsys.readouterr().out.splitlines(keepends=True)
    return "".join(line for line in lines if "[info  " not in line)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_a_retry_that_is_refused_says_why(env: Env, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batches", "retry", ended(env, ok=[1], bad=[])]) == 2
    assert "has succeeded" in capsys.readouterr().err


def test_a_batch_without_a_failure_says_so(env: Env, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batches", "errors", ended(env, ok=[1], bad=[])]) == 0
    assert said(capsys) == "No line has failed.\n"


def test_the_python_client_retries_and_reads_joined_results(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3])
    with lowtide.Client() as client:
        retry = client.retry(first, only="failed", codes=["400"], completion_window="1h")
        env.plan()
        env.settle(retry.id, ok=[2, 3])
        env.assemble()
        found = list(client.results(first, with_retries=True))
        assert [each.custom_id for each in found] == ["r-1", "r-2", "r-3"]
        with pytest.raises(lowtide.Error, match="has succeeded"):
            client.retry(retry)


async def read_joined(first: str) -> list[Any]:
    async with lowtide.AsyncClient() as client:
        return [each.custom_id async for each in client.results(first, with_retries=True)]


async def test_the_asynchronous_client_does_the_same(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3])
    async with lowtide.AsyncClient() as client:
        assert (await client.retry(first)).total == 0
    assert await read_joined(first) == ["r-1", "r-2", "r-3"]


# ---- pause, resume, set


def running(env: Env) -> str:
    body = {"input_file_id": env.upload(3).id, "endpoint": CHAT}
    batch_id = str(env.post(body).json["id"])
    env.plan()
    return batch_id


def test_a_batch_is_paused_resumed_and_changed(
    env: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_id = running(env)
    assert main(["batches", "pause", batch_id, "--in-flight", "abort"]) == 0
    assert main(["batches", "pause", batch_id, "--operator", "--json"]) == 0
    assert main(["batches", "resume", batch_id]) == 0
    assert main(["batches", "resume", batch_id, "--operator"]) == 0
    paused, holds, by_operator, free = said(capsys).splitlines()[-4:]
    assert paused == f"Batch {batch_id} is paused by its users."
    assert json.loads(holds)["holds"] == ["operator", "user"]
    assert by_operator == f"Batch {batch_id} is paused by the operator."
    assert free == f"Batch {batch_id} may go on."
    command = ["batches", "set", batch_id, "--priority", "4", "--window", "48h"]
    assert main([*command, "--metadata", "team=evals", "--json"]) == 0
    changed = json.loads(said(capsys).splitlines()[-1])
    assert (changed["priority"], changed["completion_window"]) == (4, "2d")
    assert changed["metadata"] == {"team": "evals"}
    assert main(["batches", "set", batch_id]) == 2
    assert "Nothing to change" in capsys.readouterr().err


def test_the_python_client_pauses_resumes_and_changes(env: Env) -> None:
    batch_id = running(env)
    with lowtide.Client() as client:
        assert client.pause(batch_id, in_flight="abort").raw["holds"] == ["user"]
        assert client.resume(batch_id).raw["holds"] == []
        changed = client.change(batch_id, priority=2, metadata={"k": "v"})
        assert (changed.raw["priority"], changed.metadata) == (2, {"k": "v"})


def test_one_file_on_two_models_is_two_batches_and_one_table(
    env: Env, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file_id = env.upload(2).id
    create = ["batches", "create", file_id, "--model", "m", "--model", "test-model", "--json"]
    assert main([*create, "--metadata", "team=evals"]) == 0
    made = json.loads(said(capsys))
    groups = {batch["metadata"]["group"] for batch in made}
    assert len(groups) == 1
    assert {batch["metadata"]["team"] for batch in made} == {"evals"}
    ids = [batch["id"] for batch in made]
    for batch_id in ids:
        env.plan()
        env.settle(batch_id, ok=[1, 2])
        env.assemble()
    assert main(["batches", "compare", *ids, "-o", str(tmp_path / "t.csv"), "--json"]) == 0
    assert json.loads(said(capsys).splitlines()[-1])["rows"] == 2
    head, *rows = (tmp_path / "t.csv").read_text().splitlines()
    assert head.split(",")[0] == "custom_id"
    assert [row.split(",")[0] for row in rows] == ["r-1", "r-2"]
    other = ended(env, ok=[1], bad=[])
    assert main(["batches", "compare", ids[0], other, "-o", str(tmp_path / "u.csv")]) == 2
    assert "different input files" in capsys.readouterr().err


def test_a_batch_is_deleted_with_its_results(env: Env, capsys: pytest.CaptureFixture[str]) -> None:
    batch_id = running(env)
    assert main(["batches", "delete", batch_id]) == 2
    assert "can be deleted once it has ended" in capsys.readouterr().err
    over = ended(env, ok=[1], bad=[2])
    assert main(["batches", "delete", over]) == 0
    assert f"Batch {over} and its results are deleted." in said(capsys)
    assert main(["batches", "get", over]) == 2
    with lowtide.Client() as client, pytest.raises(lowtide.Error, match="No batch found"):
        client.delete(over)


def test_an_input_goes_with_the_end_of_its_batch(env: Env) -> None:
    file_id = env.upload(1).id
    assert main(["batches", "create", file_id, "--delete-input"]) == 0
    batch_id = env.http_api.ask("GET", "/v1/batches").json["data"][0]["id"]
    env.plan()
    env.settle(batch_id, ok=[1])
    env.assemble()
    assert env.http_api.ask("GET", f"/v1/files/{file_id}").status == 404
    refused = env.post({}, f"/v1/batches/{batch_id}/retry")
    assert (refused.status, refused.error["code"]) == (409, "input_gone")


def test_several_batches_are_steered_at_once_and_a_refusal_is_told(
    env: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    done = ended(env, ok=[1], bad=[])
    running = [
        str(env.post({"input_file_id": env.upload(1).id, "endpoint": CHAT}).json["id"])
        for _ in range(2)
    ]
    assert main(["batches", "pause", *running]) == 0
    assert said(capsys).count("is paused by its users") == 2
    assert main(["batches", "list", "--filter", "state:paused", "--quiet"]) == 0
    assert said(capsys).split() == running[::-1]
    assert main(["batches", "cancel", running[0], done, running[1], "--json"]) == 1
    reported = capsys.readouterr()
    lines = [each for each in reported.out.splitlines() if "[info  " not in each]
    assert [each["id"] for each in json.loads("".join(lines))] == running
    assert done in reported.err
    assert main(["batches", "delete", *running]) == 1, "they are not over yet"
    assert capsys.readouterr().err.count("can be deleted once it has ended") == 2
    assert main(["batches", "list", "--filter", "state:cancelled", "-q"]) == 0
    assert main(["batches", "list", "--filter", "state:well"]) == 2
    assert main(["batches", "list", "--filter", "colour:red"]) == 2
    told = capsys.readouterr().err
    assert "state: is one of running, paused" in told
    assert "there is no colour:, only state:, model:, created:, error:, text:" in told
