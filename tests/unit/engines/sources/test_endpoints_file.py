"""The list of engines in a file: its format, half-written files, file systems that hang."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.engines.sources.endpoints_file import EndpointsFile, engines_of
from lowtide.ports.sources import SourceError

LLM_D = b"""
endpoints:
  - name: vllm-0
    address: 10.0.0.7
    port: "8000"
    labels: {model: Qwen3-32B, rack: 3}
  - {name: v6, address: "fd00::2", port: 8001}
"""


def test_the_format_of_llm_d_is_read() -> None:
    assert engines_of(LLM_D) == (
        FoundEngine("vllm-0", "10.0.0.7", 8000, ("Qwen3-32B",)),
        FoundEngine("v6", "fd00::2", 8001),
    )


def test_json_and_a_bare_list_are_read_too() -> None:
    one = b'{"endpoints": [{"name": "a", "address": "h", "port": "1"}]}'
    assert engines_of(one) == engines_of(b"- {name: a, address: h, port: 1}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has no list `endpoints`"),
        (b"endpoints:\n", "has no list `endpoints`"),
        (b"endpoints: {}\n", "has no list `endpoints`"),
        (b"replicas: []\n", "has no list `endpoints`"),
        (b"endpoints: [", "is no YAML"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"[" * 500, "is no YAML"),
        (b"- just words", "endpoint 1 is not a table"),
        (b"- {address: h, port: 1}", "endpoint 1 needs a name"),
        (b"- {name: a b, address: h, port: 1}", "endpoint 1 needs a name, without spaces"),
        (b"- {name: a, port: 1}", "endpoint a needs an address"),
        (b"- {name: a, address: 'http://h', port: 1}", "endpoint a needs an address"),
        (b"- {name: a, address: h, port: 0}", "endpoint a needs a port"),
        (b"- {name: a, address: h, port: 65536}", "endpoint a needs a port"),
        (b"- {name: a, address: h, port: '80x'}", "endpoint a needs a port"),
        (
            b"[{name: a, address: h, port: 1}, {name: a, address: i, port: 1}]",
            "two endpoints have the name a",
        ),
        (b"[%s]" % (b"{}," * (limits.SOURCE_ENGINES_MAX + 1)), "1,001 endpoints; 1,000 are"),
    ],
)
def test_a_file_that_is_wrong_is_told_with_its_entry(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        engines_of(data)


def test_a_file_runs_nothing_that_it_names() -> None:
    with pytest.raises(ValueError, match="is no YAML"):
        engines_of(b"!!python/object/apply:os.getcwd []")


async def names(source: EndpointsFile) -> list[str]:
    return [engine.name for engine in (await source.read()).engines]


def entry(name: str) -> str:
    return f"- {{name: {name}, address: h, port: 1}}\n"


async def test_a_file_that_is_being_written_counts_once_it_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(entry("a") + entry("b"))
    source = EndpointsFile(path)
    assert await names(source) == ["a", "b"]
    path.write_text(entry("a"))  # the first half of the new list, without a rename
    assert await names(source) == ["a", "b"]
    path.write_text(entry("a") + entry("c"))
    assert await names(source) == ["a", "b"]
    assert await names(source) == ["a", "c"]


async def test_a_file_that_is_the_same_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(entry("a"))
    source = EndpointsFile(path)
    assert await names(source) == ["a"]
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"")
    assert await names(source) == ["a"]


@pytest.mark.parametrize("broken", [Path.unlink, lambda path: os.truncate(path, 0)])
async def test_a_file_that_is_missing_or_empty_takes_no_engine_away(
    tmp_path: Path, broken: Callable[[Path], None]
) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(entry("a"))
    source = EndpointsFile(path)
    await source.read()
    broken(path)
    with pytest.raises(SourceError, match=f"{path}: "):
        for _ in range(2):
            await source.read()


async def test_a_file_too_large_to_be_a_list_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.touch()
    os.truncate(path, limits.SOURCE_BYTES_MAX + 1)
    with pytest.raises(SourceError, match="too many for a list"):
        await EndpointsFile(path).read()


async def test_a_file_system_that_hangs_takes_one_thread_and_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(entry("a"))
    source = EndpointsFile(path)
    started, goes_on, reads = threading.Event(), threading.Event(), []
    read = Path.read_bytes

    def slow(where: Path) -> bytes:
        reads.append(where)
        started.set()
        goes_on.wait()
        return read(where)

    monkeypatch.setattr(Path, "read_bytes", slow)
    monkeypatch.setattr(limits, "SOURCE_READ_S", 0.0)
    for _ in range(3):
        with pytest.raises(SourceError, match="cannot be read within 0 s"):
            await source.read()
        await asyncio.to_thread(started.wait)
    goes_on.set()
    monkeypatch.undo()
    assert await asyncio.wait_for(names(source), limits.SOURCE_READ_S) == ["a"]
    assert reads == [path]
