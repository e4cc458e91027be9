"""The direction of imports: the contracts in pyproject.toml hold, and they can fail."""

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tree import ROOT, SRC, modules

from testkit.patience import PATIENCE_S

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
        ("core/batches/batch.py", "import time", "The core is pure"),
        ("core/batches/batch.py", "import structlog", "The core is pure"),
        ("core/batches/batch.py", "from lowtide.ports import clock", "Imports point inward"),
        ("store/schema/rows.py", "from lowtide.blobs import keys", "Imports point inward"),
        ("store/schema/rows.py", "from lowtide.service.files import files", "Adapters see ports"),
        ("store/schema/rows.py", "from lowtide import config", "Adapters see ports"),
        (
            "loops/dispatch/commit.py",
            "from lowtide.store.schema import rows",
            "Imports point inward",
        ),
        ("loops/dispatch/commit.py", "import sqlalchemy", "Foreign libraries"),
        ("api/files/files.py", "from lowtide.engines.http import pool", "Imports point inward"),
        ("service/files/files.py", "from lowtide import wiring", "Imports point inward"),
        ("cli/server/serve.py", "from testkit import fake_engine", "Nothing in production"),
        (
            "wiring/application.py",
            "from testkit import scripted_engine",
            "Nothing in production",
        ),
        (
            "engine_sim/state/kv.py",
            "from lowtide.core.batches import plan",
            "The engine simulator stands alone",
        ),
        ("core/batches/plan.py", "from lowtide.core.reporting import progress", "The folders"),
        ("engine_sim/state/kv.py", "from lowtide.engine_sim.http import options", "The folders"),
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


OURS = {"lowtide": SRC.parent, "testkit": ROOT, "bench": ROOT, "tools": ROOT}
"""Where the packages lie that are imported by name."""


def missing_imports(path: Path) -> list[str]:
    """What a file imports from our packages and they do not have, wherever in it it does so."""
    return [
        f"{path}:{node.lineno} {node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
        if not has_name(node.module, alias.name)
    ]


def has_name(module: str, name: str) -> bool:
    """Whether a module of ours defines that name, or a package holds it; True for others'."""
    root = OURS.get(module.split(".")[0])
    if root is None:
        return True
    place = root / module.replace(".", "/")
    if (place / f"{name}.py").exists() or (place / name).is_dir():
        return True
    files = [each for each in (place.with_suffix(".py"), place / "__init__.py") if each.exists()]
    return any(name in words(each) for each in files)


@cache
def words(path: Path) -> frozenset[str]:
    """All words of a module: a name that it defines is among them, however it does so."""
    return frozenset(re.findall(r"\w+", path.read_text()))


def test_what_is_imported_from_our_packages_is_there() -> None:
    """Type checks do not see each folder, and a benchmark may be run months later."""
    missing = [each for path in modules() for each in missing_imports(path)]
    assert not missing, "\n".join(missing)


def test_an_import_of_what_is_not_there_is_found(tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    path.write_text("def run():\n    from bench.backend import MODEL, no_such_name\n")
    assert missing_imports(path) == [f"{path}:2 bench.backend.no_such_name"]
