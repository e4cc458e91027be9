"""The real hub library against a small hub on 127.0.0.1, and with nobody there."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lowtide.engines.models.hub import HuggingFaceHub, ModelSourceError

pytest.importorskip("huggingface_hub")

REPO = "org/tiny-GGUF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = b"GGUF" + bytes(range(256)) * 64


class HubHandler(BaseHTTPRequestHandler):
    """One public repository with one model, one gated repository, nothing else."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        if self.path.endswith("/tiny-Q4_K_M.gguf"):
            return self.send(200, MODEL, with_body)
        if self.path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": "README.md"}, {"rfilename": "tiny-Q4_K_M.gguf"}]
            about = {"id": REPO, "sha": COMMIT, "siblings": siblings}
            return self.send(200, json.dumps(about).encode(), with_body)
        if "gated" in self.path:
            return self.send(403, b"{}", with_body, error="GatedRepo")
        return self.send(404, b"{}", with_body, error="RepoNotFound")

    def send(self, status: int, body: bytes, with_body: bool, error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"


def test_a_file_is_listed_and_fetched(endpoint: str, tmp_path: Path) -> None:
    hub = HuggingFaceHub(endpoint=endpoint, cache_dir=tmp_path)
    assert hub.files(REPO) == ["README.md", "tiny-Q4_K_M.gguf"]
    path = hub.fetch(REPO, "tiny-Q4_K_M.gguf")
    assert path.read_bytes() == MODEL
    assert tmp_path in path.parents


def test_what_was_fetched_is_used_when_the_hub_is_gone(
    endpoint: str, nobody: str, tmp_path: Path
) -> None:
    before = HuggingFaceHub(endpoint=endpoint, cache_dir=tmp_path)
    path = before.fetch(REPO, "tiny-Q4_K_M.gguf")
    offline = HuggingFaceHub(endpoint=nobody, cache_dir=tmp_path)
    assert offline.files(REPO) == ["tiny-Q4_K_M.gguf"]
    assert offline.fetch(REPO, "tiny-Q4_K_M.gguf") == path


def test_without_a_network_it_is_said_what_to_do(nobody: str, tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="--model random") as caught:
        HuggingFaceHub(endpoint=nobody, cache_dir=tmp_path).files(REPO)
    assert caught.value.code == "hub_unreachable"


@pytest.mark.parametrize(
    ("repo", "code", "said"),
    [("org/none", "model_not_found", "no model org/none"), ("org/gated", "hub_refused", "terms")],
)
def test_a_repository_that_cannot_be_had_is_told(
    endpoint: str, tmp_path: Path, repo: str, code: str, said: str
) -> None:
    hub = HuggingFaceHub(endpoint=endpoint, cache_dir=tmp_path)
    with pytest.raises(ModelSourceError, match=said) as caught:
        hub.files(repo)
    assert caught.value.code == code


def test_without_the_extra_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelSourceError, match=r"pip install 'lowtide\[hub\]'") as caught:
        HuggingFaceHub(cache_dir=tmp_path).files(REPO)
    assert caught.value.code == "hub_not_installed"


def test_the_progress_bar_is_the_callers(endpoint: str, tmp_path: Path) -> None:
    seen: list[int] = []
    tqdm: Any = pytest.importorskip("tqdm").tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            seen.append(int(n or 0))
            return super().update(n)

    HuggingFaceHub(endpoint=endpoint, cache_dir=tmp_path, progress=Bar).fetch(
        REPO, "tiny-Q4_K_M.gguf"
    )
    assert sum(seen) == len(MODEL)
