"""What `lowtide serve` and `lowtide worker` have imported when they say that they are up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.patience import PATIENCE_S

NEEDED_BY_NO_START = (
    "asyncpg",
    "dns",
    "fastapi",
    "gguf",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "obstore",
    "pyarrow",
    "xllamacpp",
    "yaml",
    "lowtide.api.console.pages",
    "lowtide.api.console.rendering",
    "lowtide.api.openapi.document",
    "lowtide.api.plots",
    "lowtide.blobs.bucket",
    "lowtide.client",
    "lowtide.engine_sim",
    "lowtide.engines.embedded",
    "lowtide.engines.scalers",
    "lowtide.engines.sources",
    "lowtide.tables",
)
"""Modules and packages that some request, setting or command needs. Each was a part of a start
once, or would be of one more import at the top of a module."""

NEEDED_BY_NO_WORKER = ("lowtide.api", "starlette", "uvicorn")

_IMPORTED = re.compile(r"^import time: .*\| *(\S+)$", re.MULTILINE)


def imported_by(place: Path, *arguments: str) -> set[str]:
    """The modules that the command has imported until it ended; it is stopped once it is up."""
    log = place / "imports"
    command = [sys.executable, "-X", "importtime", "-m", "lowtide", *arguments, "--json"]
    with (
        log.open("w") as written,
        subprocess.Popen(
            command,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=written,
            env={**os.environ, "HOME": str(place)},
        ) as process,
    ):
        assert process.stdout is not None
        first = process.stdout.readline()
        process.terminate()
        process.wait(PATIENCE_S)
    assert b'"pid"' in first, log.read_text()[-2000:]
    return set(_IMPORTED.findall(log.read_text()))


def of_them(modules: set[str], named: tuple[str, ...]) -> set[str]:
    """The modules that are named, or lie in a package that is."""
    return {each for each in modules if each.startswith(tuple(f"{name}." for name in named))} | (
        modules & set(named)
    )


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (("serve", "--port", "0"), NEEDED_BY_NO_START),
        (("worker",), NEEDED_BY_NO_START + NEEDED_BY_NO_WORKER),
    ],
    ids=["serve", "worker"],
)
def test_a_start_imports_nothing_that_only_later_requests_need(
    tmp_path: Path, arguments: tuple[str, ...], unneeded: tuple[str, ...]
) -> None:
    imported = imported_by(tmp_path, *arguments)
    assert "lowtide.wiring.application" in imported
    assert of_them(imported, unneeded) == set()
