"""Batches for the console's pages, and what axe says of them.

The tests of pages need Debian's `chromium`; where there is none, they are skipped with a line that
says so. `test_console_browser.py` has one test of each page and action, in `make test`;
`console_variants.py` has the same facts another way, in `make test-console`.
"""

import shutil
from typing import Final

import httpx
import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from testkit.live_server import LiveServer

BROWSER: Final = shutil.which("chromium") or shutil.which("chromium-browser")
MODEL: Final = "echo"

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium here, so no page was opened: apt install chromium"
)


def create(url: str, requests: int, name: str, content: str = "hello", model: str = MODEL) -> str:
    """The id of a new batch."""
    lines = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "messages": [{"role": "user", "content": content}]},
        }
        for number in range(requests)
    ]
    text = b"\n".join(map(msgspec.json.encode, lines))
    form = {"purpose": "batch"}
    file = httpx.post(f"{url}/v1/files", data=form, files={"file": ("in.jsonl", text)}).json()
    body = {
        "input_file_id": file["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"name": name},
    }
    batch_id: str = httpx.post(f"{url}/v1/batches", json=body).json()["id"]
    return batch_id


def violations(page: Page) -> list[str]:
    """What axe finds wrong with the page, by the rules of WCAG 2 A and AA."""
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = Axe().run(page, options=rules).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found]


PATHS: Final = (
    "/",
    "/console/engines",
    "/console/week",
    "/console/new",
    "/console/usage",
    "/console/webhooks",
    "/console/webhooks/project",
    "/console/admin",
    "/console/admin/organizations/org_default",
    "/console/admin/projects/proj_default",
    "/console/nothing",
    "/console/sign-in",
)
"""Every page without a batch in its address."""


def violations_of_all_pages(
    server: LiveServer, browser: Browser, *, dark: bool = False, width: int = 1280
) -> dict[str, list[str]]:
    """What axe finds, by the path of the page."""
    created = create(server.address, 2, "accessible")
    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": 800}
    )
    try:
        page, found = context.new_page(), {}
        of_batch = f"/console/batches/{created}"
        for path in (*PATHS, of_batch, f"{of_batch}/lines", f"{of_batch}/lines?kind=errors"):
            page.goto(server.address + path)
            found[path] = violations(page)
        return {path: wrong for path, wrong in found.items() if wrong}
    finally:
        context.close()
