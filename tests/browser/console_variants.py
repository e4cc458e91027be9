"""Facts of test_console_browser.py in other ways: other colours and widths, no streams.

`make test-console` runs them with the others; `make test` does not.
"""

import pytest
from console_pages import create, needs_browser, violations_of_all_pages
from playwright.sync_api import Browser, Page, Route, expect

from testkit.live_server import LiveServer
from testkit.patience import PATIENCE_S

pytestmark = needs_browser


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_keep_the_rules_of_accessibility(
    server: LiveServer, browser: Browser, scheme: str, width: int
) -> None:
    assert violations_of_all_pages(server, browser, dark=scheme == "dark", width=width) == {}


def test_a_page_asks_again_and_again_where_no_stream_gets_through(
    server: LiveServer, page: Page
) -> None:
    page.route("**/console/live?*", lambda route: _without_streams(route))
    page.goto(f"{server.address}/?q=asks")
    created = create(server.address, 1, "asks again")
    row = page.locator(f"tr[data-href$='{created}']")
    expect(row).to_contain_text("completed", timeout=2 * PATIENCE_S * 1000)
    expect(page.locator("#connection")).to_have_text("")


def _without_streams(route: Route) -> None:
    if route.request.resource_type == "eventsource":
        route.abort()
    else:
        route.continue_()
