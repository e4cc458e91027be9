"""`python -m testkit.demo.screenshots`: the console's pages as pictures, from a demo of its own.

Light and dark, wide and narrow, into a folder. With `--at ADDRESS` of a demo that runs already. It
needs Debian's `chromium`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Page, sync_playwright

from testkit.demo.client import DemoClient

FOLDER: Final = Path("build/screenshots")
LIVE_S: Final = 90
"""Seconds of live traffic before the pictures, so that plots have something to show."""

WIDTHS: Final[Mapping[str, int]] = {"wide": 1280, "narrow": 400}
SCHEMES: Final[Sequence[Literal["light", "dark"]]] = ("light", "dark")
HEIGHT: Final = 860
HEIGHT_MAX: Final = 4000
"""Pixels of a whole page that a picture shows."""

DOCS: Final = Path("docs/pictures")
IN_DOCS: Final[Mapping[str, tuple[str, Literal["light", "dark"]]]] = {
    "console-batches": ("batches", "light"),
    "console-batch": ("batch-running", "dark"),
    "console-usage": ("usage", "light"),
}
"""The pictures that README and docs show, by name: which page, in which scheme."""
DOCS_SIZE: Final = (1280, 860)

BROWSER: Final = ("chromium", "chromium-browser")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--docs", action="store_true", help="take the pictures of README and docs instead"
    )
    parser.add_argument(
        "--live-s", type=float, default=LIVE_S, help="seconds that the demo runs before"
    )
    parser.add_argument("--at", help="the address of a demo that runs already")
    asked = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSER)), None)
    if browser is None:
        print("screenshots: no chromium here: apt install chromium", file=sys.stderr)
        return 1
    asked.folder.mkdir(parents=True, exist_ok=True)
    take = _take_for_docs if asked.docs else _take
    if asked.at:
        take(asked.at, browser, asked.folder)
        return 0
    with _demo() as address:
        print(f"letting live calls run for {asked.live_s:.0f} s", file=sys.stderr, flush=True)
        time.sleep(asked.live_s)
        take(address, browser, asked.folder)
    return 0


@contextmanager
def _demo() -> Iterator[str]:
    command = [sys.executable, "-m", "testkit.demo", "--json", "--port", "0"]
    folder = ["--folder", "demo-out/screenshots"]
    with subprocess.Popen([*command, *folder], stdout=subprocess.PIPE) as demo:
        try:
            assert demo.stdout is not None
            line = demo.stdout.readline()
            if not line:
                raise SystemExit("screenshots: the demo did not start")
            yield json.loads(line)["address"]
        finally:
            demo.terminate()
            demo.wait()


def _take(address: str, browser: str, folder: Path) -> None:
    pages = _pages(address)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for scheme in SCHEMES:
            for name, width in WIDTHS.items():
                context = chromium.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": HEIGHT}
                )
                page = context.new_page()
                for title, path in pages.items():
                    _picture(page, address + path, folder / f"{title}-{name}-{scheme}.png")
                context.close()
        chromium.close()


def _take_for_docs(address: str, browser: str, _folder: Path) -> None:
    """What is committed: whatever of the page is seen in one window."""
    pages, (width, height) = _pages(address), DOCS_SIZE
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, (title, scheme) in IN_DOCS.items():
            context = chromium.new_context(
                color_scheme=scheme, viewport={"width": width, "height": height}
            )
            page = context.new_page()
            page.goto(address + pages[title])
            _settled(page)
            page.screenshot(path=DOCS / f"{name}.png")
            context.close()
        chromium.close()


def _picture(page: Page, address: str, path: Path) -> None:
    page.goto(address)
    _settled(page)
    tall = min(HEIGHT_MAX, page.evaluate("document.documentElement.scrollHeight"))
    size = page.viewport_size or {"width": WIDTHS["wide"], "height": HEIGHT}
    clip = {"x": 0, "y": 0, "width": size["width"], "height": max(tall, HEIGHT)}
    page.screenshot(path=path, full_page=True, clip=clip)  # type: ignore[arg-type]
    print(path, file=sys.stderr, flush=True)


def _settled(page: Page) -> None:
    """Waits until the script has shown instants in this zone, and is connected."""
    page.wait_for_timeout(300)
    page.wait_for_function("!document.getElementById('connection')?.textContent")


def _pages(address: str) -> dict[str, str]:
    """The path of each page, by the name of its pictures."""
    with DemoClient(address) as client:
        batches = client.call("GET", "/v1/batches?limit=100")["data"]
        files = client.call("GET", "/v1/files?limit=100&purpose=batch")["data"]
    by_name = {each["metadata"].get("name") or each["id"]: each for each in batches}
    of = {name: f"/console/batches/{each['id']}" for name, each in by_name.items()}
    running, failed = of["Abstracts of 40,000 papers"], of["Reviews of November"]
    invalid = next(each["id"] for each in batches if each["status"] == "failed")
    draft = next(each["id"] for each in files if each["filename"] == "papers.jsonl")
    wrong = next(each["id"] for each in files if each["filename"] == "with-mistakes.jsonl")
    return {
        "batches": "/",
        "batches-none": "/?q=state:running+nothing+is+like+that",
        "batch-running": running,
        "batch-paused": of["Archive, first pass"],
        "batch-failed-lines": failed,
        "batch-invalid": f"/console/batches/{invalid}",
        "batch-waits": of["Compare with DeepSeek, again"],
        "lines": f"{failed}/lines",
        "errors": f"{failed}/lines?kind=errors",
        "new": "/console/new",
        "draft": f"/console/new/{draft}",
        "draft-wrong": f"/console/new/{wrong}",
        "engines": "/console/engines",
        "week": "/console/week",
        "usage": "/console/usage",
        "webhooks": "/console/webhooks",
        "administration": "/console/admin",
        "organization": "/console/admin/organizations/org_default",
        "project": "/console/admin/projects/proj_default",
    }


if __name__ == "__main__":
    sys.exit(main())
