"""`lowtide init`: what it finds on a machine, and the file that it writes."""

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from prompt import Run

from lowtide import config
from lowtide.cli.server import init


class _Engine(http.server.BaseHTTPRequestHandler):
    status = 200
    answer: Mapping[str, object] = {}

    def do_GET(self) -> None:
        body = json.dumps(self.answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def engine(status: int, models: list[dict[str, str]]) -> Iterator[int]:
    """A server on loopback that lists these models; its port."""
    handler = type("_Listing", (_Engine,), {"status": status, "answer": {"data": models}})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def look_at(monkeypatch: pytest.MonkeyPatch, *ports: tuple[int, str]) -> None:
    monkeypatch.setattr(init.find_engines, "__defaults__", (ports,))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lowtide.toml"


def test_the_engines_that_answer_are_in_the_file(
    run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(200, [{"id": 'a "quoted" model'}, {"id": "b"}]) as port, engine(401, []) as locked:
        look_at(monkeypatch, (port, "vLLM"), (locked, "SGLang"))
        outcome = run_main("init")
    assert outcome.code == 0
    assert 'vLLM): a "quoted" model, b' in outcome.out
    assert "lowtide doctor" in outcome.err
    monkeypatch.setenv("ENGINE_API_KEY", "a-key-of-some-length")
    first, second = config.load(here).replica
    assert first.url == f"http://127.0.0.1:{port}/v1"
    assert first.models == ('a "quoted" model', "b")
    assert (second.url, second.models) == (f"http://127.0.0.1:{locked}/v1", ("*",))


def test_without_an_engine_the_file_is_sound_and_says_where_to_name_one(
    run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at(monkeypatch)
    outcome = run_main("init")
    assert outcome.code == 0
    assert "No engine answers" in outcome.out
    assert config.load(here).replica == ()
    assert "# [[replica]]" in here.read_text()


def test_a_lowtide_server_is_no_engine(
    run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(200, [{"id": "m", "owned_by": "lowtide"}]) as port:
        look_at(monkeypatch, (port, "vLLM"))
        outcome = run_main("init", "--json")
    assert json.loads(outcome.out)["engines"] == []


def test_a_file_that_exists_is_kept_unless_told(
    run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at(monkeypatch)
    here.write_text("# mine\n")
    refused = run_main("init")
    assert refused.code == 2
    assert "exists already" in refused.err
    assert here.read_text() == "# mine\n"
    assert run_main("init", "--force").code == 0
    assert "[server]" in here.read_text()


def test_the_servers_own_port_is_no_engines() -> None:
    found = [init.LocalEngine("http://127.0.0.1:8000/v1", "vLLM", ("m",))]
    assert "port = 8100" in init.settings_text(found)
    assert "port = 8000" in init.settings_text([])
