"""A real browser shows a foreign page: what it can do to a server that asks for no keys.

Needs Debian's `chromium`; where there is none, these tests are skipped with a line that says so.
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from testkit.live_server import LiveServer, live_server

BROWSER: Final = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_S: Final = 120.0
FOREIGN_NAME: Final = "rebound.test"

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium here, so no foreign page was tried: apt install chromium"
)

PAGE: Final = """<!doctype html><meta charset=utf-8><body><script>
const T = "TARGET", told = {};
async function tried(name, work) {
  try { const r = await work(); told[name] = r.type === "opaque" ? "opaque" : r.status || "sent"; }
  catch (error) { told[name] = "blocked"; }
}
const form = () => {
  const f = new FormData();
  f.append("purpose", "batch");
  f.append("file", new Blob(['{"custom_id":"1"}\\n']), "stolen.jsonl");
  return f;
};
const submit = (field) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.name = "f" + Math.random();
  const form = document.createElement("form");
  form.method = "POST"; form.action = T + "/v1/files"; form.target = frame.name;
  form.enctype = "multipart/form-data";
  for (const [k, v] of [["purpose", "batch-api"], ["file_name", field]]) {
    const input = document.createElement("input");
    input.name = k; input.value = v; form.append(input);
  }
  document.body.append(frame, form);
  frame.onload = () => done({type: "basic", status: "sent"});
  form.submit();
});
const image = () => new Promise((done) => {
  const img = new Image();
  img.onload = img.onerror = () => done({type: "basic", status: "asked"});
  img.src = T + "/v1/files";
});
(async () => {
  await tried("read", () => fetch(T + "/v1/files"));
  await tried("upload", () => fetch(T + "/v1/files",
    {method: "POST", mode: "no-cors", body: form()}));
  await tried("json", () => fetch(T + "/v1/chat/completions", {method: "POST", mode: "no-cors",
    body: JSON.stringify({model: "m", messages: [{role: "user", content: "x"}]})}));
  await tried("preflighted", () => fetch(T + "/v1/batches", {method: "POST",
    headers: {"content-type": "application/json"}, body: "{}"}));
  await tried("beacon", async () => {
    navigator.sendBeacon(T + "/v1/files", form()); return {};
  });
  await tried("form", () => submit("stolen.jsonl"));
  await tried("image", image);
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  document.body.append(out);
  await fetch("/done");  // lets the image below come, and with it the end of loading
})();
</script><img src="/held">"""


@contextmanager
def page_server(pages: dict[str, str]) -> Iterator[str]:
    """Another origin of this machine. A page is loaded when it has asked for `/done`."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/held":
                done.wait(BROWSER_S)
            elif self.path == "/done":
                done.set()
            page = pages.get(self.path, "").encode()
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def shown(url: str, profile: Path) -> str:
    """The document that the browser ends with, as text. It reaches this machine alone."""
    command = [
        str(BROWSER),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={profile}",
        f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1, MAP * ~NOTFOUND,"
        " EXCLUDE localhost, EXCLUDE 127.0.0.1",
        "--dump-dom",
        url,
    ]
    done = subprocess.run(command, capture_output=True, timeout=BROWSER_S, check=True)
    return unescape(done.stdout.decode())


def told_by(page: str) -> dict[str, Any]:
    found = re.search(r'<pre id="told">(.*?)</pre>', page)
    assert found is not None, page[:2000]
    told: dict[str, Any] = json.loads(found[1])
    return told


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("open"), ["m"]) as running:
        yield running


def port_of(server: LiveServer) -> str:
    return server.address.rpartition(":")[2]


def files_of(server: LiveServer) -> list[str]:
    """Names, as a program on this machine sees them."""
    files: list[dict[str, str]] = httpx.get(f"{server.address}/v1/files").json()["data"]
    return [file["filename"] for file in files]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_can_upload_run_and_read_nothing(
    server: LiveServer, tmp_path: Path, name: str
) -> None:
    target = f"http://{name}:{port_of(server)}"
    calls = server.engine.calls.total()
    with page_server({"/": PAGE.replace("TARGET", target)}) as origin:
        told = told_by(shown(origin + "/", tmp_path / "profile"))
    assert told["read"] == "blocked"
    assert told["preflighted"] == "blocked"
    assert told["upload"] == told["json"] == "opaque", "sent, and it saw nothing of the answer"
    assert {"form", "beacon", "image"} <= told.keys()
    assert files_of(server) == []
    assert server.engine.calls.total() == calls, "nothing ran"
    log = server.log.read_text()
    assert "open_mode.refused" in log
    assert "origin_not_allowed" in log


def test_a_foreign_name_that_leads_here_is_refused(server: LiveServer, tmp_path: Path) -> None:
    page = shown(f"http://{FOREIGN_NAME}:{port_of(server)}/v1/files", tmp_path / "profile")
    assert "host_not_allowed" in page
    assert "server.allowed_hosts" in page


def test_a_link_on_a_foreign_page_leads_to_ours(server: LiveServer, tmp_path: Path) -> None:
    follow = (
        f'<a id=a href="{server.address}/v1/models">x</a><script>a.click()</script>'
        '<img src="/held">'
    )
    with page_server({"/": follow}) as origin:
        page = shown(origin + "/", tmp_path / "profile")
    assert '"id":"m"' in page
