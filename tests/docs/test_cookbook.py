"""The cookbook's pages run as they stand: each in a fresh folder, block by block.

`make test` runs those that take seconds on the random model, and shows that their commands and
scripts work. `make test-cookbook` sets PAGES_MODEL=demo: then all pages run, and the answers
on them are compared, too. One server serves all pages that start it as the cookbook does; the
others start their own.
"""

from pathlib import Path

import pytest
from page_blocks import PYTHON, blocks_of
from page_server import MODEL, PageServer
from page_session import ROOT, Session

COOKBOOK = ROOT / "docs" / "cookbook"
SCRIPTS = ROOT / "examples" / "cookbook"
PAGES = sorted(COOKBOOK.glob("*.md"))
LONG = frozenset(
    [
        "embeddings",
        "eval-harness",
        "extract",
        "from-openai",
        "judge",
        "larger-than-limits",
        "nightly",
        "resume",
        "synthetic",
        "vision",
    ]
)
"""Pages that need sensible answers to go on, or servers of their own, or more than seconds."""
FOLLOWED = [page for page in PAGES if MODEL == "demo" or page.stem not in LONG]


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.stem)
async def test_the_page_can_be_followed(
    page: Path, page_server: PageServer, tmp_path: Path
) -> None:
    async with Session(tmp_path, MODEL, page_server.by_command) as session:
        await session.follow(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_output_on_a_page_says_how_far_it_holds(page: Path) -> None:
    outputs = [block for block in blocks_of(page.read_text()) if block.language == "text"]
    assert [block.line for block in outputs if not block.mark.startswith("prints")] == []


def test_the_long_pages_are_pages() -> None:
    assert {page.stem for page in PAGES} >= LONG


def test_every_script_of_the_cookbook_is_run_by_a_page() -> None:
    run = "".join(
        block.text
        for page in PAGES
        for block in blocks_of(page.read_text())
        if block.runs or block.mark == "in the background"
    )
    scripts = {f"examples/cookbook/{path.name}" for path in SCRIPTS.glob("*.py")}
    assert {script for script in scripts if f"python {script}" not in run} == set()


def test_the_index_of_the_cookbook_has_every_recipe() -> None:
    index = (COOKBOOK / "README.md").read_text()
    assert [page.name for page in PAGES if f"({page.name})" not in index] == ["README.md"]


def test_python_on_a_page_stands_in_a_script_that_runs() -> None:
    loose = [
        f"{page.name}:{block.line}"
        for page in PAGES
        for block in blocks_of(page.read_text())
        if block.language in PYTHON and not (block.runs or block.mark.startswith("excerpt of "))
    ]
    assert loose == []
