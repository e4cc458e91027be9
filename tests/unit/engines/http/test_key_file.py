"""A key that lies in a file, and a key that was changed there."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.http.key_file import KeyFile
from testkit.scripted_engine import ScriptedEngine, completion, reply

ATTEMPT_S = 30.0  # never reached: a bound on a broken test, not a wait
NO = (reply({"error": {"message": "wrong key"}}, 401),)
OK = (reply(completion()),)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("old\n")
    return file


def rotate(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def keys_sent(upstream: ScriptedEngine) -> list[str]:
    return [seen.headers["authorization"].removeprefix("Bearer ") for seen in upstream.requests]


async def test_a_key_that_was_changed_is_read_when_the_old_one_is_refused(
    upstream: ScriptedEngine, file: Path
) -> None:
    client = HttpEngine(upstream.url, key_file=KeyFile(file))
    await client.post("/x", b"", ATTEMPT_S)
    rotate(file, b"new\n")
    upstream.script(NO, OK)
    answer = await client.post("/x", b"", ATTEMPT_S)
    assert isinstance(answer, Reply)
    assert answer.status == 200
    assert keys_sent(upstream) == ["old", "old", "new"]
    await client.aclose()


async def test_a_stream_is_asked_for_again_with_the_new_key(
    upstream: ScriptedEngine, file: Path
) -> None:
    client = HttpEngine(upstream.url, key_file=KeyFile(file))
    rotate(file, b"new\n")
    upstream.script(NO, OK)
    async with client.open_stream("/x", b"", ATTEMPT_S) as stream:
        assert not isinstance(stream, NoReply)
        assert stream.status == 200
    assert keys_sent(upstream) == ["old", "new"]
    await client.aclose()


async def test_a_key_that_is_wrong_and_stays_is_refused_without_a_second_call(
    upstream: ScriptedEngine, file: Path
) -> None:
    client = HttpEngine(upstream.url, key_file=KeyFile(file))
    upstream.otherwise = NO
    answers = await asyncio.gather(*(client.post("/x", b"", ATTEMPT_S) for _ in range(20)))
    assert {a.status for a in answers if isinstance(a, Reply)} == {401}
    assert keys_sent(upstream) == ["old"] * 20
    await client.aclose()


@pytest.mark.parametrize("rotated", [b"", b"two\nlines\x00", b"\xff\xfe"])
async def test_a_file_that_holds_no_key_leaves_the_old_one(
    upstream: ScriptedEngine, file: Path, rotated: bytes
) -> None:
    client = HttpEngine(upstream.url, key_file=KeyFile(file))
    rotate(file, rotated)
    upstream.script(NO, OK)
    await client.post("/x", b"", ATTEMPT_S)
    await client.post("/x", b"", ATTEMPT_S)
    assert keys_sent(upstream) == ["old", "old"]
    await client.aclose()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is no text"),
        (b"x" * 70_000, "too long"),
    ],
)
def test_a_file_that_cannot_hold_a_key_is_refused_by_name(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(ValueError, match=words) as refused:
        KeyFile(tmp_path / "key").read()
    assert str(tmp_path / "key") in str(refused.value)
