"""`lowtide serve` in the foreground, and the commands that talk to it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from command_line import (
    Command,
    custom_ids,
    first_lines,
    lowtide,
    reached,
    request_line,
    write_lines,
)

from testkit.scripted_engine import ScriptedEngine, completion, reply

QUICK = (reply(completion()),)


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(otherwise=QUICK) as engine:
        yield engine


@pytest.fixture
def home(tmp_path: Path, engine: ScriptedEngine) -> Path:
    """A folder with a lowtide.toml that knows the engine."""
    settings = f'[[replica]]\nurl = "{engine.url}"\nmodels = ["m"]\nwindow = 8\n'
    (tmp_path / "lowtide.toml").write_text(settings)
    return tmp_path


async def started(home: Path, *arguments: str) -> tuple[Command, str]:
    """A server on a free port, and its address."""
    command = await Command.start("serve", "--port", "0", "--json", *arguments, cwd=home)
    return command, (await command.printed_json())["address"]


async def test_every_step_by_hand(home: Path) -> None:
    batch = write_lines(home / "b.jsonl", [request_line(f"r{n}") for n in range(5)])
    server, address = await started(home)
    async with server:

        async def ask(*arguments: str | Path) -> tuple[int, str, str]:
            return await lowtide(*arguments, cwd=home, LOWTIDE_SERVER=address)

        code, file_id, _ = await ask("files", "upload", batch)
        assert code == 0
        code, content, _ = await ask("files", "content", file_id.strip())
        assert content == batch.read_text()
        code, batch_id, _ = await ask("batches", "create", file_id.strip(), "--metadata", "k=v")
        assert code == 0
        code, out, _ = await ask("batches", "watch", batch_id.strip(), "--json")
        assert code == 0
        assert json.loads(out.splitlines()[-1])["status"] == "completed"
        code, out, _ = await ask("batches", "get", batch_id.strip(), "--json")
        assert json.loads(out)["metadata"] == {"k": "v"}
        code, _, _ = await ask("batches", "results", batch_id.strip(), "-o", home / "out.jsonl")
        assert code == 0
        assert custom_ids(home / "out.jsonl") == [f"r{n}" for n in range(5)]
        _, out, _ = await ask("batches", "list")
        assert batch_id.strip() in out
        code, _, _ = await ask("files", "delete", file_id.strip())
        assert code == 0
        code, _, reported = await ask("files", "get", file_id.strip())
        assert code == 2 and "No such File" in reported


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_in_good_order(home: Path, number: signal.Signals) -> None:
    server, _ = await started(home)
    async with server:
        server.send(number)
        code, _, reported = await server.ended()
    assert code == 0
    assert "stopping" in reported


async def test_a_second_ctrl_c_stops_at_once_and_says_so(
    home: Path, engine: ScriptedEngine
) -> None:
    batch = write_lines(home / "b.jsonl", [request_line("r")])
    opened = asyncio.Event()
    engine.otherwise = (opened, *QUICK)
    server, address = await started(home)
    async with server:
        code, _, _ = await lowtide("batches", "create", batch, "--server", address, cwd=home)
        assert code == 0
        await reached(engine, 1)
        server.send(signal.SIGINT)
        await server.said("stopping")
        server.send(signal.SIGINT)
        code, _, reported = await server.ended()
    opened.set()
    assert code == 130
    assert "stopped at once; what was in flight runs again at the next start" in reported


async def test_a_port_and_a_data_dir_have_one_server(home: Path) -> None:
    server, address = await started(home)
    async with server:
        port = address.rpartition(":")[2]
        code, _, reported = await lowtide(
            "serve", "--port", port, "--data-dir", home / "other", cwd=home
        )
        assert code == 2 and f"Port {port}" in reported
        for number in ("0", port):  # the folder says more than the port
            code, _, reported = await lowtide("serve", "--port", number, cwd=home)
            assert code == 2 and "in use by another Lowtide" in reported


async def test_a_run_on_a_server_goes_on_after_ctrl_c(home: Path, engine: ScriptedEngine) -> None:
    batch = write_lines(home / "b.jsonl", [request_line(f"r{n}") for n in range(20)])
    opened = asyncio.Event()
    engine.otherwise = (opened, *QUICK)
    server, address = await started(home)
    arguments = ["run", str(batch), "-o", "out.jsonl", "--server", address]
    async with server:
        async with await Command.start(*arguments, cwd=home) as command:
            await reached(engine, 1)
            command.send(signal.SIGINT)
            code, _, reported = await command.ended()
        assert code == 130
        assert "The batch goes on at" in reported
        opened.set()

        # Whether the first one had heard of its batch or not: there is one, and each line ran once.
        code, _, _ = await lowtide(*arguments, cwd=home)
        assert code == 0
        assert custom_ids(home / "out.jsonl") == [f"r{n}" for n in range(20)]
        assert len(engine.requests) == 20
        _, out, _ = await lowtide("batches", "list", "--json", "--server", address, cwd=home)
        assert len(json.loads(out)["data"]) == 1


async def test_results_can_be_followed_while_the_batch_runs(
    home: Path, engine: ScriptedEngine
) -> None:
    batch = write_lines(home / "b.jsonl", [request_line(f"r{n}") for n in range(20)])
    opened = asyncio.Event()
    engine.script(*[QUICK] * 5)
    engine.otherwise = (opened, *QUICK)
    server, address = await started(home)
    out = home / "out.jsonl"
    async with server:
        _, file_id, _ = await lowtide("files", "upload", batch, "--server", address, cwd=home)
        _, batch_id, _ = await lowtide(
            "batches", "create", file_id.strip(), "--server", address, cwd=home
        )
        arguments = ["batches", "results", batch_id.strip(), "-o", str(out), "--follow"]
        async with await Command.start(*arguments, "--server", address, cwd=home) as command:
            await reached(engine, 5 + 8)
            await first_lines(out, 5)
            opened.set()
            code, _, _ = await command.ended()
    assert code == 0
    assert custom_ids(out) == [f"r{n}" for n in range(20)]


async def test_doctor_finds_the_engine(home: Path, engine: ScriptedEngine) -> None:
    engine.script((reply({"object": "list", "data": [{"id": "m"}]}),))
    code, out, _ = await lowtide("doctor", "--json", cwd=home)
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 0
    assert checks[f"replica {engine.url}"]["verdict"] == "ok"
    assert not (home / "lowtide-data").exists()


async def test_doctor_fails_when_the_engine_is_gone(home: Path, engine: ScriptedEngine) -> None:
    await engine.stop()
    code, out, _ = await lowtide("doctor", cwd=home)
    assert code == 1
    assert f"replica {engine.url}" in out and "cannot be reached" in out
