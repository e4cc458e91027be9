"""The random model on disk. That it answers is proven by tests/e2e/test_embedded_engine.py."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lowtide.engines.embedded.gguf_header import GgufHeader, read_header
from lowtide.engines.models.random_model import CONTEXT_TOKENS, FILE_BYTES, random_model


def test_the_model_is_written_on_first_use_in_a_folder_made_for_it(tmp_path: Path) -> None:
    path = random_model(tmp_path / "new" / "random.gguf")
    assert read_header(path) == GgufHeader("llama", CONTEXT_TOKENS, pools=True)
    assert path.stat().st_size == FILE_BYTES


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = random_model(tmp_path / "a.gguf"), random_model(tmp_path / "b.gguf")
    assert first.read_bytes() == second.read_bytes()


def test_an_intact_model_is_used_as_it_is(tmp_path: Path) -> None:
    path = random_model(tmp_path / "random.gguf")
    before = path.stat()
    random_model(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_truncated_model_is_written_again(tmp_path: Path) -> None:
    path = random_model(tmp_path / "random.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    random_model(path)
    assert path.read_bytes() == whole


def test_many_writers_at_once_leave_one_whole_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(random_model, [path] * 8))
    assert [child.name for child in tmp_path.iterdir()] == ["random.gguf"]
    assert path.stat().st_size == FILE_BYTES


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        random_model(tmp_path / "file" / "random.gguf")
