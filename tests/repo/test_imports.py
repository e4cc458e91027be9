"""The direction of imports: the contracts in pyproject.toml hold, and they can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tree import ROOT, SRC

from lowtide.testing.patience import PATIENCE_S

LINT = [
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command; lint_imports_command()",
]


def lint(folder: Path, source: Path) -> "subprocess.CompletedProcess[str]":
    """Run the contracts of `folder` over the package under `source`."""
    return subprocess.run(
        [*LINT, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_imports_point_inward() -> None:
    done = lint(ROOT, ROOT / "src")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("core/batch.py", "import time", "The core is pure"),
        ("core/batch.py", "import structlog", "The core is pure"),
        ("core/batch.py", "from lowtide.ports import clock", "Imports point inward"),
        ("store/rows.py", "from lowtide.blobs import keys", "Imports point inward"),
        ("store/rows.py", "from lowtide.service import files", "Adapters see ports"),
        ("store/rows.py", "from lowtide import config", "Adapters see ports"),
        ("loops/commit.py", "from lowtide.store import rows", "Imports point inward"),
        ("loops/commit.py", "import sqlalchemy", "Foreign libraries"),
        ("api/files.py", "from lowtide.engines import http_pool", "Imports point inward"),
        ("service/files.py", "from lowtide import wiring", "Imports point inward"),
        ("cli/serve.py", "from lowtide.testing.engine_sim import engine", "Nothing in production"),
        (
            "wiring/application.py",
            "from lowtide.testing import scripted_engine",
            "Nothing in production",
        ),
    ],
)
def test_an_import_against_the_rules_is_found(
    tmp_path: Path, module: str, statement: str, contract: str
) -> None:
    shutil.copytree(SRC, tmp_path / "src" / "lowtide", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "src" / "lowtide" / module
    path.write_text(f"{path.read_text()}\n{statement}\n")
    done = lint(tmp_path, tmp_path / "src")
    assert done.returncode == 1, done.stdout
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), done.stdout
