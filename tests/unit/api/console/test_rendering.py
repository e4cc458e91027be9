"""Compiled templates are kept for the next start, where that can be done."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment

from lowtide.api.console import rendering

TEMPLATE = "parts/fleet.html"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder, with an environment that is made anew."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    rendering.environment.cache_clear()
    yield tmp_path
    rendering.environment.cache_clear()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of templates that were compiled."""
    names: list[str] = []
    whole = Environment.compile

    def noted(self: Environment, source: str, name: str, *more: str) -> object:
        names.append(name)
        return whole(self, source, name, *more)

    monkeypatch.setattr(Environment, "compile", noted)
    return names


def shown() -> str:
    return rendering.render(TEMPLATE, {"fleet": None})


def test_a_template_is_compiled_at_the_first_start_alone(
    temporary: Path, compiled: list[str]
) -> None:
    first = shown()
    assert TEMPLATE in compiled
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    compiled.clear()
    rendering.environment.cache_clear()
    assert shown() == first
    assert compiled == []


def test_what_was_kept_and_is_no_bytecode_is_compiled_again(
    temporary: Path, compiled: list[str]
) -> None:
    first = shown()
    for kept in temporary.glob("*/*"):
        kept.write_bytes(kept.read_bytes()[:-40])
    compiled.clear()
    rendering.environment.cache_clear()
    assert shown() == first
    assert TEMPLATE in compiled


def test_a_folder_that_goes_away_is_done_without(temporary: Path) -> None:
    rendering.environment()
    for folder in temporary.iterdir():
        folder.rmdir()
    shown()
    assert list(temporary.iterdir()) == []


def test_a_folder_that_is_a_link_is_not_trusted(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown()
    (folder,) = temporary.iterdir()
    for kept in folder.iterdir():
        kept.unlink()
    folder.rmdir()
    foreign = tmp_path_factory.mktemp("foreign")
    folder.symlink_to(foreign)
    rendering.environment.cache_clear()
    shown()
    assert list(foreign.iterdir()) == []


def test_an_image_is_built_with_all_of_them_and_its_containers_compile_none(
    temporary: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = temporary / "package"
    monkeypatch.setattr(rendering, "_IN_PACKAGE", package)
    rendering.keep_in_package()
    assert {TEMPLATE, "batch.html"} <= set(compiled)
    assert len(list(package.iterdir())) == len(compiled)
    assert {each.stat().st_mode & 0o777 for each in package.iterdir()} == {0o644}
    compiled.clear()
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    rendering.environment.cache_clear()
    rendering.compile_templates()
    assert compiled == []
    assert list(temporary.iterdir()) == [package]


def test_nothing_is_kept_where_python_keeps_no_bytecode(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    rendering.environment.cache_clear()
    shown()
    assert list(temporary.iterdir()) == []
