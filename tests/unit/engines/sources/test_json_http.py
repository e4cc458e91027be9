"""JSON from the API of another system: what goes wrong is told, without a token."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.engines.sources.json_http import JsonApi
from lowtide.ports.sources import SourceError
from testkit.small_http_server import Answer, small_http_server


async def words_of(answer: Answer) -> str:
    async with small_http_server(lambda _: answer) as url:
        api = JsonApi(url)
        with pytest.raises(SourceError) as caught:
            await api.get("/list")
        await api.aclose()
    return str(caught.value).removeprefix(url)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, b'{"message": "no\\nright"}'), "/list: it answers 403: no right"),
        ((500, b"<html>"), "/list: it answers 500"),
        ((302, b""), "/list: it answers 302"),
        ((200, b"<html>"), "/list: the answer is no JSON"),
        ((200, b"[" * 5_000), "/list: the answer is no JSON"),
    ],
)
async def test_an_answer_that_is_none_is_told(answer: Answer, words: str) -> None:
    assert await words_of(answer) == words


async def test_an_answer_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    monkeypatch.setattr(limits, "SOURCE_BYTES_MAX", 200_000)
    assert await words_of((200, endless())) == "/list: the answer is too long"


async def test_a_server_that_is_away_is_told_and_asked_again() -> None:
    async with small_http_server(lambda _: (200, b"{}")) as url:
        api = JsonApi(url)
        assert await api.get("/list") == {}
    with pytest.raises(SourceError, match="/list: "):
        await api.get("/list")
    await api.aclose()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file"), (b"", "holds no token"), (b"a\nb", "holds no token")],
)
async def test_a_token_file_that_has_none_is_told(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        await JsonApi("http://127.0.0.1:9", token_file=file).get("/list")


async def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    with pytest.raises(SourceError, match="holds no certificates"):
        await JsonApi("https://127.0.0.1:9", ca_file=file).get("/list")
    file.write_text("no certificate")
    with pytest.raises(SourceError, match="holds no certificates"):
        await JsonApi("https://127.0.0.1:9", ca_file=file).get("/list")
