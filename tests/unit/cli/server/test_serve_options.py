"""cli/server/serve.py: folders that are asked for, and folders that are taken."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prompt import Run

from lowtide.data_dir import locked_data_dir


@pytest.fixture
def plain_server() -> Iterator[str]:
    """The port of something that speaks HTTP without TLS."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def test_a_worker_may_have_a_folder_of_its_own(run_main: Run, tmp_path: Path) -> None:
    with locked_data_dir(tmp_path / "w1"):
        done = run_main("worker", "--data-dir", "w1")
    assert done.code == 2
    assert f"{tmp_path / 'w1'} is in use by another Lowtide" in done.err


def test_a_second_server_on_a_folder_hears_of_the_folder_rather_than_the_port(
    run_main: Run, tmp_path: Path
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        locked_data_dir(tmp_path / "lowtide-data"),
    ):
        port = str(taken.getsockname()[1])
        done = run_main("serve", "--port", port)
    assert done.code == 2
    assert "is in use by another Lowtide" in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_main("serve", "--port", port, "--data-dir", "other")
    assert done.code == 2
    assert f"Port {port} on 127.0.0.1 is in use" in done.err
    assert not (tmp_path / "other").exists()


def test_https_to_a_port_without_tls_is_told_apart_from_nobody(
    run_main: Run, plain_server: str
) -> None:
    done = run_main("batches", "list", "--server", f"https://127.0.0.1:{plain_server}")
    assert done.code == 2
    assert "does not speak TLS" in done.err
    assert f"Try http://127.0.0.1:{plain_server}." in done.err
