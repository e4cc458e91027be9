"""What an engine says of our key is passed on without the key."""

import json
from pathlib import Path

import pytest

from lowtide.core.faults.outcome import Reply
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.http.key_file import KeyFile
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine, reply

KEY = "sk-Hidden1/Hidden2+x=="
HEADER = "Token Hidden3-Hidden4"
QUERY = "Hidden5-Hidden6"


def quoting(*words: str, status: int = 401) -> bytes:
    return reply({"error": {"message": f"Incorrect API key provided: {' '.join(words)}."}}, status)


def keyed(upstream: ScriptedEngine) -> HttpEngine:
    return HttpEngine(
        upstream.url, api_key=KEY, headers={"x-token": HEADER, "x-team": "red"}, query={"k": QUERY}
    )


@pytest.mark.parametrize("status", [302, 400, 401, 403, 500])
async def test_an_engine_that_quotes_our_secrets_is_heard_without_them(status: int) -> None:
    said = quoting(KEY, "Hidden3-Hidden4", QUERY, "of the red team", status=status)
    async with ScriptedEngine([said], [said], [said]) as upstream:
        engine = keyed(upstream)
        for answer in (
            await engine.post("/x", b"{}", PATIENCE_S),
            await engine.get("/x", PATIENCE_S),
        ):
            assert isinstance(answer, Reply)
            assert b"Hidden" not in answer.body
            reported = json.loads(answer.body)["error"]["message"]
            assert reported == "Incorrect API key provided: *** *** *** of the red team."
        async with engine.open_stream("/x", b"{}", PATIENCE_S) as opened:
            block = await opened.read()
            assert isinstance(block, bytes) and b"***" in block and b"Hidden" not in block
        await engine.aclose()


async def test_an_answer_is_passed_on_as_it_is() -> None:
    async with ScriptedEngine([quoting(KEY, status=200)]) as upstream:
        engine = keyed(upstream)
        answer = await engine.post("/x", b"{}", PATIENCE_S)
        assert isinstance(answer, Reply) and KEY.encode() in answer.body
        await engine.aclose()


async def test_the_key_that_was_replaced_is_hidden_as_well(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("Hidden1-old")
    async with ScriptedEngine(
        [quoting("Hidden1-old")], [quoting("Hidden1-old", "Hidden2-new")]
    ) as upstream:
        engine = HttpEngine(upstream.url, key_file=KeyFile(file))
        file.write_text("Hidden2-new")
        answer = await engine.post("/x", b"{}", PATIENCE_S)
        assert isinstance(answer, Reply) and b"*** ***" in answer.body
        assert len(upstream.requests) == 2
        await engine.aclose()
