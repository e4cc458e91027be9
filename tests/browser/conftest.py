"""What tests of the console's pages share: a browser, a server, a page that records problems."""

from collections.abc import Iterator

import pytest
from console_pages import BROWSER, MODEL
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from testkit.live_server import LiveServer, live_server
from testkit.patience import PATIENCE_S


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("server"), [MODEL]) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test for an error, a dialog, or a request to another host."""
    context: BrowserContext = browser.new_context(base_url=None)
    problems: list[str] = []
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_S * 1000)
    opened.on("pageerror", lambda error: problems.append(f"error: {error}"))
    opened.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda asked: _note_foreign(asked.url, problems))
    yield opened
    context.close()
    assert problems == []


def _note_foreign(url: str, problems: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "about:")):
        problems.append(f"asked {url}")
