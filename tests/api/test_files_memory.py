"""A file is never whole in the server's memory: 100 MB in and out, the peak told by the kernel."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import api_server
import pytest

from lowtide import limits
from testkit.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux"
)

BLOCK = (b'{"custom_id":"x","body":{}}\n' * 9363)[: 256 * 1024]
BLOCKS = limits.FILE_BYTES // len(BLOCK)
RISE_BYTES_MAX = 32 * 1024**2


@dataclass
class Server:
    port: int
    pid: int

    def memory(self, field: str) -> int:
        """VmRSS or VmHWM in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(field)

    def begin(self) -> int:
        """Reset the peak to what is held now, and return that."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    command = [sys.executable, api_server.__file__, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        port, pid = child.stdout.readline().split()
        yield Server(int(port), int(pid))
        child.stdin.close()
        child.wait(PATIENCE_S)


def body(head: bytes, tail: bytes) -> Iterator[bytes]:
    if head:
        yield head
    for _ in range(BLOCKS):
        yield BLOCK
    if tail:
        yield tail


def test_a_hundred_megabytes_in_parts_hardly_show(server: Server) -> None:
    """Two parts at a time, as Together's client sends four, and then all of them put together."""
    parts, size = 4, BLOCKS * len(BLOCK)
    figures = []

    def ask(path: str, asked: dict[str, Any]) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.request("POST", f"/v1/files/multipart/{path}", json.dumps(asked))
        answer = connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, said
        return said

    def put(part: dict[str, Any]) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        address = "/" + part["URL"].split("/", 3)[3]
        length = {"Content-Length": str(size // parts)}
        connection.request("PUT", address, iter([BLOCK] * (BLOCKS // parts)), length)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return {"part_number": part["PartNumber"], "etag": answer.headers["etag"]}

    def measured(name: str, before: int, began: float) -> None:
        rise = server.memory("VmHWM") - before
        rate = size / (time.perf_counter() - began) / 1e6
        figures.append(f"{name}: +{rise / 1e6:.1f} MB, {rate:.0f} MB/s")
        assert rise < RISE_BYTES_MAX, figures

    new = {"file_name": "x", "file_size": size, "num_parts": parts, "purpose": "batch-api"}
    begun = ask("initiate", new)
    before, began = server.begin(), time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        claims = list(threads.map(put, begun["parts"]))
    measured("parts up", before, began)
    before, began = server.begin(), time.perf_counter()
    which = {"upload_id": begun["upload_id"], "file_id": begun["file_id"], "parts": claims}
    assert ask("complete", which)["file"]["bytes"] == size
    measured("put together", before, began)
    print("; ".join(figures))


def test_a_hundred_megabytes_in_and_out_hardly_show(server: Server) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)

    def ask(
        method: str, path: str, data: Iterator[bytes] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, named)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()

    head, kind = api_server.form([("purpose", None, b"batch"), ("file", "x.jsonl", b"")])
    cut = head.rindex(b"\r\n--edge--")
    head, tail = head[:cut], head[cut:]
    size = BLOCKS * len(BLOCK)
    status, headers, _ = ask("POST", "/v1/files?purpose=batch-api&file_name=x.jsonl")
    assert status == 302
    address = "/" + headers["location"].split("/", 3)[3]
    figures = []

    def measured(name: str, before: int, began: float) -> None:
        rise = server.memory("VmHWM") - before
        rate = size / (time.perf_counter() - began) / 1e6
        figures.append(f"{name}: +{rise / 1e6:.1f} MB, {rate:.0f} MB/s")
        assert rise < RISE_BYTES_MAX, figures

    before, began = server.begin(), time.perf_counter()
    length = str(len(head) + size + len(tail))
    status, _, answer = ask(
        "POST", "/v1/files", body(head, tail), Content_Type=kind, Content_Length=length
    )
    assert status == 200, answer
    measured("form up", before, began)

    before, began = server.begin(), time.perf_counter()
    status, _, answer = ask("PUT", address, body(b"", b""), Content_Length=str(size))
    assert status == 200, answer
    measured("signed PUT", before, began)

    before, began = server.begin(), time.perf_counter()
    file_id = headers["x-together-file-id"]
    connection.request("GET", f"/v1/files/{file_id}/content")
    response = connection.getresponse()
    got = 0
    while block := response.read(1024**2):
        got += len(block)
    assert got == size
    measured("down", before, began)
    connection.close()
    print("; ".join(figures))
