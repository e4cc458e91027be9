"""README and the how-to pages run as they stand: each in a fresh folder, block by block.

`make test` follows those that take seconds, on the random model; `make test-pages` sets
PAGES_MODEL=demo and follows all of them. One server serves all pages that start it in the usual
way; pages of `AT_THE_SERVER` are for whoever runs it and find its installation.
"""

import shutil
from pathlib import Path

import pytest
from page_blocks import blocks_of
from page_server import MODEL, PageServer
from page_session import ROOT, Session

HOW_TO = ROOT / "docs" / "how-to"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
PAGES += sorted(HOW_TO.glob("*.md"))
AT_THE_SERVER = frozenset(["limits-and-money", "troubleshooting"])
"""Their commands look into the folder of the server that runs."""
BESIDE_IT = frozenset(["deadlines", "delete", "long-batches", "retry", "runbooks"])
"""Their commands mean the server at the usual address, which here has another port."""
COPIED = """
lowtide backup /backup/lowtide/2026-01-01 --data-dir "$DATA_DIR_OF_THE_SERVER"
lowtide restore /backup/lowtide/2026-01-01 --data-dir lowtide-data
"""
"""An installation in ./lowtide-data that no server uses, and a backup of it."""
GIVEN = {
    "backup": COPIED,
    "runbooks": COPIED + "lowtide files upload examples/batch.jsonl",
}
"""What the reader of a page has before it begins."""
LONG = frozenset(
    [
        "backup",
        "examples",
        "find-engines",
        "flex",
        "limits-and-money",
        "own-engines",
        "python",
        "runbooks",
        "tables",
    ]
)
"""Pages that need sensible answers, servers of their own, or more than seconds."""


def name_of(page: Path) -> str:
    return page.parent.name if page.parent.name == "examples" else page.stem


def is_followed(page: Path) -> bool:
    has_blocks = any(
        block.runs or block.mark == "in the background" for block in blocks_of(page.read_text())
    )
    return has_blocks and (MODEL == "demo" or name_of(page) not in LONG)


@pytest.mark.skipif(shutil.which("jq") is None, reason="pages take answers apart with jq")
@pytest.mark.parametrize("page", [*filter(is_followed, PAGES)], ids=name_of)
async def test_the_page_can_be_followed(
    page: Path, page_server: PageServer, tmp_path: Path
) -> None:
    environment = {"DATA_DIR_OF_THE_SERVER": str(page_server.data_dir)}
    if name_of(page) in AT_THE_SERVER:
        environment["LOWTIDE_SERVER__DATA_DIR"] = str(page_server.data_dir)
    if name_of(page) in BESIDE_IT:
        environment["LOWTIDE_SERVER"] = f"http://127.0.0.1:{page_server.port}"
    async with Session(tmp_path, MODEL, page_server.by_command, environment) as session:
        await session.follow(page, GIVEN.get(name_of(page), ""))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_marks_of_the_page_are_sound(page: Path) -> None:
    assert blocks_of(page.read_text()) is not None


def test_the_named_pages_are_pages() -> None:
    assert {name_of(page) for page in PAGES} >= {*LONG, *AT_THE_SERVER, *BESIDE_IT, *GIVEN}
