"""Pages of docs/how-to: the one that a machine can follow is followed, all have sound marks."""

import shutil
from pathlib import Path

import pytest
from page_blocks import blocks_of
from page_session import ROOT, Session

PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
SERVER = "lowtide serve --model demo"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_marks_of_the_page_are_sound(page: Path) -> None:
    assert blocks_of(page.read_text()) is not None


@pytest.mark.skipif(shutil.which("jq") is None, reason="the page takes answers apart with jq")
async def test_the_page_about_curl_can_be_followed(server_port: int, tmp_path: Path) -> None:
    async with Session(tmp_path, "random", {SERVER: server_port}) as session:
        await session.follow(ROOT / "docs" / "how-to" / "http.md")
