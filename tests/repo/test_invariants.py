"""The pages of docs/invariants: each says why its statement holds, and its proofs exist."""

import re
from pathlib import Path

import pytest
from tree import ROOT, shown

PAGES = sorted((ROOT / "docs" / "invariants").glob("[0-9]*.md"))
PARTS = ("**Statement.**", "**Kept by**", "**Why it holds.**", "**Shown by**")
TESTS = frozenset(
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.M)
)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_an_invariant_has_a_statement_a_keeper_an_argument_and_a_proof(page: Path) -> None:
    text = page.read_text()
    places = [text.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_test_that_an_invariant_names_exists(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text()))
    assert named, "an invariant without a test"
    assert named <= TESTS, f"no such test: {sorted(named - TESTS)}"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_keeper_of_an_invariant_exists(page: Path) -> None:
    """`name` in [`module`](path): the module has that name."""
    kept = page.read_text().partition("**Kept by**")[2].partition("**Why it holds.**")[0]
    pairs = re.findall(r"((?:`\w+`[ ,and]*)+)\s+in\s+\[`[^`]+`\]\(([^)]+)\)", kept)
    for names, target in pairs:
        source = (page.parent / target).resolve().read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b(def|class) {name}\b|^{name}\b", source, re.M), (
                f"{target}: {name}"
            )


def test_the_index_lists_each_invariant_once() -> None:
    index = (ROOT / "docs" / "invariants" / "README.md").read_text()
    assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", index) == [page.name for page in PAGES]
