"""SIGHUP: a running server reads its settings again, and is never ended by it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from command_line import Command, custom_ids, lowtide, reached, request_line, write_lines

from testkit.scripted_engine import ScriptedEngine, completion, reply

QUICK = (reply(completion()),)


@pytest.fixture
async def engines() -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    async with ScriptedEngine(otherwise=QUICK) as one, ScriptedEngine(otherwise=QUICK) as two:
        yield one, two


def replica(engine: ScriptedEngine, model: str, **more: str | int) -> str:
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return f'[[replica]]\nurl = "{engine.url}"\nmodels = ["{model}"]\n{keys}'


async def test_replicas_and_models_change_while_a_batch_runs(
    tmp_path: Path, engines: tuple[ScriptedEngine, ScriptedEngine]
) -> None:
    one, two = engines
    settings = tmp_path / "lowtide.toml"
    settings.write_text(replica(one, "m", window=4))
    opened = asyncio.Event()
    one.otherwise = (opened, *QUICK)
    slow = write_lines(tmp_path / "slow.jsonl", [request_line(f"r{n}") for n in range(12)])
    new = write_lines(tmp_path / "new.jsonl", [request_line("n", model="new")])

    async def reload(text: str, said: str) -> dict[str, list[str]]:
        settings.write_text(text)
        server.send(signal.SIGHUP)
        line: dict[str, list[str]] = json.loads(await server.said(said))
        return line

    server = await Command.start("serve", "--port", "0", "--json", cwd=tmp_path)
    async with server:
        address = (await server.printed_json())["address"]
        run = ["run", str(slow), "-o", "slow.out", "--server", address]
        async with await Command.start(*run, cwd=tmp_path) as running:
            await reached(one, 1)

            bad = await reload("[server]\nprot = 1\n", "settings.not_reloaded")
            assert "server.prot: there is no such key" in bad["errors"][0]

            named = replica(two, "new", name="spare")
            public = '[server]\npublic_url = "http://lowtide.example"\n'
            news = await reload(public + replica(one, "m", window=4) + named, "settings.reloaded")
            assert (news["added"], news["removed"], news["changed"]) == (["spare"], [], [])
            keys = json.loads(await server.said("settings.need_restart"))["keys"]
            assert keys == ["server.public_url"]
            code, _, reported = await lowtide(
                "run", new, "-o", "new.out", "--server", address, cwd=tmp_path
            )
            assert code == 0, reported
            assert len(two.requests) == 1

            both = replica(two, "m", name="spare")
            gone = await reload(both, "settings.reloaded")
            assert (len(gone["removed"]), gone["changed"]) == (1, ["spare"])
            sent = len(one.requests)
            await reached(two, 2)  # what waited for the other one goes on here
            opened.set()
            code, _, reported = await running.ended()
            assert code == 0, reported
        assert custom_ids(tmp_path / "slow.out") == [f"r{n}" for n in range(12)]
        assert len(one.requests) == sent, "one that leaves is sent nothing more, and ends its calls"
        assert len(one.requests) + len(two.requests) == 12 + 1, "no line was sent twice"
        server.send(signal.SIGTERM)
        code, _, _ = await server.ended()
    assert code == 0
