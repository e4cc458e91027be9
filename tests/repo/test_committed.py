"""What is committed: nothing large, nothing about the machine it was written on."""

import re
from pathlib import Path

import pytest
from tree import ROOT, committed, shown

FILE_BYTES_MAX = 1024 * 1024
# Joined here, so that this file does not name what it forbids.
REGISTRIES = re.compile("|".join([r"pypi\." + "org", "python" + "hosted", r"registry\.npm" + "js"]))
MACHINE_PATHS = re.compile(r"(?:^|[^\w.-])/(?:work|farm|root|Users)/[A-Za-z.]")
GENERATED = re.compile(r"(^|/)(__pycache__|\.venv|lowtide-data|demo-out)/|\.(pyc|gguf|db|whl)$")


def texts() -> list[tuple[str, str]]:
    """Committed files that are text, by name."""
    found = []
    for path in committed():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found.append((shown(path), data.decode(errors="replace")))
    return found


def places(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_is_larger_than_a_megabyte() -> None:
    assert [shown(path) for path in committed() if path.stat().st_size > FILE_BYTES_MAX] == []


def test_pictures_are_those_that_the_docs_show_and_are_small() -> None:
    """Nothing made is committed but these: a page that is read where it lies, on a host of code or
    in an editor, can make no picture. `make screenshots SCREENSHOTS_ARGS=--docs` and
    `make bench-live` make them. Pictures of the examples are input, made by nothing.
    """
    kinds = (".png", ".jpg", ".jpeg", ".gif", ".webp")
    found = {shown(path): path for path in committed() if path.suffix in kinds}
    found = {name: path for name, path in found.items() if not name.startswith("examples/")}
    names = ("console-batch", "console-batches", "console-usage", "day", "trade")
    assert sorted(found) == [f"docs/pictures/{name}.png" for name in names]
    assert {name for name, path in found.items() if path.stat().st_size >= 200_000} == set()
    reported = "".join(text for name, text in texts() if name.endswith(".md"))
    assert [name for name in names if f"pictures/{name}.png" not in reported] == []


def test_no_package_registry_is_named() -> None:
    assert places(REGISTRIES) == []


def test_no_path_of_a_machine_is_named() -> None:
    assert places(MACHINE_PATHS) == []


def test_nothing_generated_is_committed() -> None:
    assert [shown(path) for path in committed() if GENERATED.search(shown(path))] == []


@pytest.mark.parametrize(
    "name",
    [f"requirements{kind}.txt" for kind in ("", "-test", "-dev", "-fuzz", "-demo")],
)
def test_every_pinned_package_has_its_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", "")
    for line in text.splitlines():
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ ", line), line
        assert "--hash=sha256:" in line, line
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links)", text, re.M)


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+(?:\[[\w,-]+\])?)==(\S+)", (ROOT / name).read_text(), re.M))


def test_the_smaller_requirement_files_hold_the_versions_of_the_larger() -> None:
    dev, test, run = (pins(f"requirements{kind}.txt") for kind in ("-dev", "-test", ""))
    assert test.items() <= dev.items()
    assert run.items() <= test.items()
    assert run.items() <= pins("requirements-fuzz.txt").items()


def test_the_build_machine_runs_the_command_that_the_readme_names() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert "make test" in script.read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "is_one"), [("see /wo" + "rk/x", True), ("network/x", False), ("a/ro" + "ot/b", False)]
)
def test_a_path_of_a_machine_is_recognised(line: str, is_one: bool) -> None:
    assert bool(MACHINE_PATHS.search(line)) is is_one


def test_the_licence_is_whole() -> None:
    text = Path(ROOT / "LICENSE").read_text()
    assert text.lstrip().startswith("Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in text
