"""docs/how-to/python.md: every block of Python runs, in order, as it stands."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batch_server import ADDRESS, BatchServer

import lowtide
import lowtide.client.map_run
from lowtide.cli.client.server_client import ServerClient

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "python.md"


def answer(prompt: str) -> str:
    return '{"label": "kind", "stars": 4}' if "Judge" in prompt else f"re: {prompt}"


async def test_the_page_works_as_it_is_written(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def open_client(*_: Any) -> Iterator[ServerClient]:
        yield server.connect(ADDRESS, None)

    monkeypatch.setattr(lowtide.client.map_run, "_open_client", open_client)
    monkeypatch.setattr(lowtide, "Client", partial(lowtide.Client, sleep=server.pause))
    server.models, server.rule = ["demo"], answer
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        run = block.replace("asyncio.run(both())", "None, None\nwaited = both")
        exec(compile(run, str(PAGE), "exec"), names)
    french, short = await names["waited"]()
    assert len(blocks) == 4
    assert names["good"] == [7, 8]
    assert french[0]["answer"].startswith("re: Translate")
    assert short[1]["answer"].startswith("re: Summarize")
    assert "r2 re: Say 2." in capsys.readouterr().out
    assert names["batch"].completed == 3
