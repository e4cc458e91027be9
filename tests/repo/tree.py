"""What the tests of the tree itself look at: source files, committed files, Markdown pages."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "lowtide"
CODE_FOLDERS = ("src", "testkit", "tests", "bench", "tools", "examples")


@cache
def modules(*folders: str) -> tuple[Path, ...]:
    """Python files under these folders of the tree, all of ours when none is named."""
    roots = [ROOT / folder for folder in folders or CODE_FOLDERS]
    return tuple(sorted(path for root in roots for path in root.rglob("*.py")))


@cache
def pages() -> tuple[Path, ...]:
    """All Markdown pages of ours."""
    nested = [page for folder in ("docs", "examples") for page in (ROOT / folder).rglob("*.md")]
    return tuple(sorted([*ROOT.glob("*.md"), *nested]))


@cache
def committed() -> tuple[Path, ...]:
    """What git keeps; skips where there is no git or no checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def shown(path: Path) -> str:
    """As a person names it."""
    return str(path.relative_to(ROOT))
