"""`lowtide run` as people meet it: a child process, a real engine over HTTP, interruptions."""

import asyncio
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from command_line import (
    Command,
    custom_ids,
    lowtide,
    names_in,
    reached,
    read_lines,
    request_line,
    write_lines,
)

from testkit.scripted_engine import Answer, ScriptedEngine, completion, reply

LINES = 200
WINDOW = 8
ANSWERED_FIRST = 40
QUICK: Answer = (reply(completion()),)
Engine = partial(ScriptedEngine, models=())  # it has a list of models, and takes any name


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    lines = (request_line(f"req-{n}") for n in range(LINES))
    return write_lines(tmp_path / "batch.jsonl", lines)


class Gate:
    """An engine that answers the first requests at once, and the rest when it is opened."""

    def __init__(self, answered_first: int = ANSWERED_FIRST) -> None:
        self.opened = asyncio.Event()
        first = [QUICK] * answered_first
        self.engine = Engine(*first, otherwise=(self.opened, *QUICK))
        self._reached = answered_first + 1

    async def is_reached(self) -> None:
        """Wait until a request waits for the gate."""
        await reached(self.engine, self._reached)


def run_arguments(batch: Path, engine: ScriptedEngine) -> list[str | Path]:
    return ["run", batch, "-o", "out.jsonl", "--url", engine.url, "--window", str(WINDOW)]


async def stopped_twice(gate: Gate, batch: Path, folder: Path, words: str) -> str:
    """What the run reports that gets a second Ctrl-C once it has said those words of the first."""
    async with await Command.start(*run_arguments(batch, gate.engine), cwd=folder) as command:
        await gate.is_reached()
        command.send(signal.SIGINT)
        await command.said(words)
        command.send(signal.SIGINT)
        code, _, reported = await command.ended()
    assert code == 130
    return reported


async def test_results_come_in_input_order_and_nothing_else_is_left(
    batch: Path, tmp_path: Path
) -> None:
    async with Engine(otherwise=QUICK) as engine:
        code, out, _ = await lowtide(*run_arguments(batch, engine), cwd=tmp_path)
    assert code == 0
    assert custom_ids(tmp_path / "out.jsonl") == [f"req-{n}" for n in range(LINES)]
    assert "200 succeeded, none failed" in out
    assert names_in(tmp_path) == ["batch.jsonl", "out.jsonl"]


async def test_json_is_the_only_thing_on_standard_output(batch: Path, tmp_path: Path) -> None:
    async with Engine(otherwise=QUICK) as engine:
        code, out, _ = await lowtide(*run_arguments(batch, engine), "--json", cwd=tmp_path)
    answer = json.loads(out)
    assert code == 0
    assert answer["output_lines"] == LINES
    assert answer["batch"]["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}


async def test_failed_lines_go_to_the_error_file_and_the_exit_code_says_so(tmp_path: Path) -> None:
    batch = write_lines(tmp_path / "b.jsonl", [request_line("good"), request_line("bad")])
    refusal = {"error": {"message": "that prompt is too long", "code": "too_long"}}

    async with Engine(QUICK, (reply(refusal, 400),)) as engine:
        arguments = run_arguments(batch, engine)
        code, out, _ = await lowtide(*arguments, "--window", "1", cwd=tmp_path)
    assert code == 1
    done, failed = custom_ids(tmp_path / "out.jsonl"), custom_ids(tmp_path / "out.errors.jsonl")
    assert sorted(done + failed) == ["bad", "good"] and len(failed) == 1
    assert "that prompt is too long" in out


async def test_after_ctrl_c_the_same_command_goes_on(batch: Path, tmp_path: Path) -> None:
    gate = Gate()
    async with gate.engine as engine:
        async with await Command.start(*run_arguments(batch, engine), cwd=tmp_path) as command:
            await gate.is_reached()
            command.send(signal.SIGINT)
            await command.said("Stopping")
            gate.opened.set()
            code, _, reported = await command.ended()
        assert code == 130
        assert "The same command goes on from there" in reported
        assert not (tmp_path / "out.jsonl").exists()

        code, _, reported = await lowtide(*run_arguments(batch, engine), cwd=tmp_path)
        assert code == 0
        assert "Going on with" in reported
        assert custom_ids(tmp_path / "out.jsonl") == [f"req-{n}" for n in range(LINES)]
        # What was in flight was waited for and kept: no request was ever sent twice.
        assert len(engine.requests) == LINES


async def test_a_second_ctrl_c_stops_at_once_and_says_what_is_kept(
    batch: Path, tmp_path: Path
) -> None:
    gate = Gate()
    async with gate.engine:
        reported = await stopped_twice(gate, batch, tmp_path, "Stopping")
        gate.opened.set()
    told = "Stopped at once: what was in flight runs again. Kept in out.jsonl.lowtide."
    assert told in " ".join(reported.split())


async def test_after_kill_9_the_same_command_goes_on(batch: Path, tmp_path: Path) -> None:
    gate = Gate()
    async with gate.engine as engine:
        async with await Command.start(*run_arguments(batch, engine), cwd=tmp_path) as command:
            await gate.is_reached()
            command.send(signal.SIGKILL)
            await command.ended()
        gate.opened.set()

        code, out, reported = await lowtide(*run_arguments(batch, engine), cwd=tmp_path)
        assert code == 0
        assert "Going on with" in reported
        assert "200 succeeded" in out
        assert custom_ids(tmp_path / "out.jsonl") == [f"req-{n}" for n in range(LINES)]
        # At most what was answered since the last commit, and what was in flight, is done again.
        assert len(engine.requests) <= LINES + ANSWERED_FIRST + WINDOW


async def test_a_second_ctrl_c_stops_at_once(batch: Path, tmp_path: Path) -> None:
    gate = Gate(answered_first=0)
    async with gate.engine as engine:
        await stopped_twice(gate, batch, tmp_path, "Ctrl-C again")
        await engine.saw_abandoned(1)


async def test_a_changed_input_is_refused_until_restart(batch: Path, tmp_path: Path) -> None:
    gate = Gate()
    async with gate.engine as engine:
        async with await Command.start(*run_arguments(batch, engine), cwd=tmp_path) as command:
            await gate.is_reached()
            command.send(signal.SIGKILL)
            await command.ended()
        gate.opened.set()
        write_lines(batch, [request_line("another")])

        code, _, reported = await lowtide(*run_arguments(batch, engine), cwd=tmp_path)
        assert code == 2
        assert "is not what it was" in reported and "--restart" in reported

        code, _, _ = await lowtide(*run_arguments(batch, engine), "--restart", cwd=tmp_path)
        assert code == 0
        assert custom_ids(tmp_path / "out.jsonl") == ["another"]


async def test_two_runs_for_one_output_do_not_meet(batch: Path, tmp_path: Path) -> None:
    gate = Gate()
    async with gate.engine as engine:
        async with await Command.start(*run_arguments(batch, engine), cwd=tmp_path) as command:
            await gate.is_reached()
            code, _, reported = await lowtide(*run_arguments(batch, engine), cwd=tmp_path)
            assert code == 2
            assert "Another `lowtide run` is writing out.jsonl" in reported
            gate.opened.set()
            code, _, _ = await command.ended()
        assert code == 0
    assert len(custom_ids(tmp_path / "out.jsonl")) == LINES


async def test_bad_lines_are_named_before_anything_runs(tmp_path: Path) -> None:
    lines = [request_line("a"), {"custom_id": "b"}, request_line("a")]
    batch = write_lines(tmp_path / "b.jsonl", lines)
    async with Engine() as engine:
        code, out, _ = await lowtide(*run_arguments(batch, engine), cwd=tmp_path)
        assert engine.requests == []
    assert code == 3
    assert "line 2: missing_required_parameter" in out
    assert "line 3: duplicate_custom_id" in out
    assert names_in(tmp_path) == ["b.jsonl"]


async def test_a_model_of_our_own_answers_for_all_that_the_lines_name(tmp_path: Path) -> None:
    lines = [request_line(f"r{n}", model=f"org/model-{n}") for n in range(3)]
    batch = write_lines(tmp_path / "b.jsonl", lines)
    arguments: list[str | Path] = ["run", batch, "-o", "out.jsonl", "--model", "random"]
    code, _, reported = await lowtide(*arguments, cwd=tmp_path)
    assert code == 0
    assert "random answers for" in reported and "org/model-2" in reported
    assert custom_ids(tmp_path / "out.jsonl") == ["r0", "r1", "r2"]
    for line in read_lines(tmp_path / "out.jsonl"):
        assert line["response"]["body"]["choices"][0]["message"]["role"] == "assistant"


async def test_a_model_that_is_not_there_leaves_nothing_behind(batch: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["run", batch, "-o", "out.jsonl", "--model", "missing.gguf"]
    code, _, reported = await lowtide(*arguments, cwd=tmp_path)
    assert code == 2
    assert "missing.gguf" in reported
    assert names_in(tmp_path) == ["batch.jsonl"]


async def test_force_leaves_nothing_of_the_run_before(batch: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "out.jsonl", [request_line("old")])
    write_lines(tmp_path / "out.errors.jsonl", [request_line("old")])
    async with Engine(otherwise=QUICK) as engine:
        code, _, _ = await lowtide(*run_arguments(batch, engine), "--force", cwd=tmp_path)
    assert code == 0
    assert len(custom_ids(tmp_path / "out.jsonl")) == LINES
    assert names_in(tmp_path) == ["batch.jsonl", "out.jsonl"]


async def piped(given: Path, *arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Run a command with a file as its standard input."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
    with given.open("rb") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lowtide",
            *arguments,
            cwd=cwd,
            env=clean,
            stdin=stream,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_dash_is_standard_input_and_standard_output(tmp_path: Path) -> None:
    lines = [request_line("good"), request_line("bad")]
    given = write_lines(tmp_path / "given.jsonl", lines)
    refusal = {"error": {"message": "\x1b[31mno", "code": "no"}}
    async with Engine(QUICK, (reply(refusal, 400),)) as engine:
        arguments = ["run", "-", "-o", "-", "--window", "1", "--url", engine.url]
        code, out, err = await piped(given, *arguments, cwd=tmp_path)
        assert code == 1, err
        assert len(out.splitlines()) == 1
        assert json.loads(out)["response"]["status_code"] == 200
        assert "1 succeeded, 1 failed" in err
        assert "\x1b" not in err
        assert len(custom_ids(tmp_path / "stdin.errors.jsonl")) == 1
        assert names_in(tmp_path) == ["given.jsonl", "stdin.errors.jsonl"]
        code, out, err = await piped(given, *arguments, "--json", cwd=tmp_path)
    assert code == 2
    assert "both write to standard output" in out
