"""The console behind a proxy that ends TLS, below a path prefix, in keys mode: by forms and by a
browser. The proxy is a small one of the test's own, on 127.0.0.1.
"""

import asyncio
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from api_server import open_api_server
from console_client import csrf_in, get, post
from playwright.sync_api import expect, sync_playwright
from tenant_env import EVERYTHING, Env, line

from lowtide.config import AuthSettings, ServerSettings, Settings
from testkit.patience import PATIENCE_S

PREFIX: Final = "/team/batch"
OPENSSL: Final = shutil.which("openssl")
BROWSER: Final = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    settings = Settings(
        server=ServerSettings(data_dir=tmp_path / "data", path_prefix=PREFIX),
        auth=AuthSettings(mode="keys"),
    )
    with open_api_server(tmp_path, settings) as http_api:
        yield Env(http_api)


def test_every_address_of_every_page_is_below_the_prefix(env: Env) -> None:
    admin = env.tenant("office", EVERYTHING)
    batch, csrf = env.ended_batch(admin).id, csrf_in(get(env.http_api, f"{PREFIX}/console/sign-in"))
    fields = {"key": admin.key, "next": f"{PREFIX}/", "csrf": csrf}
    signed_in = post(env.http_api, f"{PREFIX}/console/sign-in", **fields)
    assert signed_in.headers["location"] == f"{PREFIX}/"
    assert f"path={PREFIX}/" in signed_in.headers["set-cookie"].lower()
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    for path in (
        "/",
        "/?q=state:completed",
        "/console/new",
        "/console/engines",
        "/console/usage",
        "/console/webhooks",
        "/console/webhooks/project",
        "/console/admin",
        f"/console/admin/organizations/{admin.organization_id}",
        f"/console/admin/projects/{admin.project_id}",
        f"/console/batches/{batch}",
        f"/console/batches/{batch}/lines",
        f"/console/batches/{batch}/lines?kind=errors",
    ):
        page = get(env.http_api, PREFIX + path, cookie)
        assert page.status == 200, path
        text = page.body.decode()
        named = re.findall(r'(?:href|src|action|data-href|data-live)="(/[^"]*)"', text)
        assert named, path
        assert [each for each in named if not each.startswith(f"{PREFIX}/")] == [], path
    csrf = csrf_in(get(env.http_api, f"{PREFIX}/", cookie))
    deleted = post(env.http_api, f"{PREFIX}/console/batches/{batch}/delete", cookie, csrf=csrf)
    assert deleted.headers["location"] == f"{PREFIX}/"


@contextmanager
def tls_proxy(port: int, folder: Path) -> Iterator[int]:
    """Ends TLS and passes each request on, with `X-Forwarded-Proto: https` in it; its port."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    stop, listening = asyncio.Event(), threading.Event()
    ports: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []
    passing: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection: the answer says that it closes, so a browser opens another."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            first, rest = head.split(b"\r\n", 1)
            behind_reader, behind = await asyncio.open_connection("127.0.0.1", port)
            kept = re.sub(rb"(?i)connection:[^\r]*\r\n", b"", rest)
            behind.write(first + b"\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n" + kept)
            sending = asyncio.ensure_future(pump(reader, behind))
            try:
                await pump(behind_reader, writer)
            finally:
                sending.cancel()
                behind.transport.abort()
                writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(passed(reader, writer))
        passing.add(task)
        task.add_done_callback(passing.discard)

    async def serve() -> None:
        async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
            loops.append(asyncio.get_running_loop())
            ports.append(server.sockets[0].getsockname()[1])
            listening.set()
            await stop.wait()
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert listening.wait(PATIENCE_S)
    try:
        yield ports[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.skipif(
    BROWSER is None or OPENSSL is None,
    reason="no chromium here, so no page was opened: apt install chromium openssl",
)
def test_a_browser_signs_in_watches_and_acts_through_tls_below_a_prefix(
    env: Env, tmp_path: Path
) -> None:
    tenant = env.tenant()
    with tls_proxy(env.http_api.port, tmp_path) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        foreign: list[str] = []
        home = f"https://127.0.0.1:{port}{PREFIX}/"
        page.on("request", lambda each: each.url.startswith(home) or foreign.append(each.url))
        page.goto(home)
        page.get_by_label("API key").fill(tenant.key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("h1")).to_have_text("Batches")
        (cookie,) = context.cookies()
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        assert cookie["path"] == f"{PREFIX}/"
        made = tenant.create(line(), metadata={"name": "through TLS"}).json["id"]
        page.get_by_role("link", name="through TLS").click()  # it came by the stream
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        assert tenant.ask("GET", f"{PREFIX}/v1/batches/{made}").json["holds"] == ["user"]
        browser.close()
        assert foreign == []
