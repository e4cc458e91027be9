"""The console in a real browser: it keeps itself up to date, and obeys nothing that others wrote.

Needs Debian's `chromium`; where there is none, these tests are skipped with a line that says so.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from testkit.live_server import LiveServer, live_server
from testkit.patience import PATIENCE_S

BROWSER: Final = shutil.which("chromium") or shutil.which("chromium-browser")
MODEL: Final = "echo"
HOSTILE: Final = '<img src="http://elsewhere.test/x" onerror="alert(1)"><script>alert(2)</script>'

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium here, so no page was opened: apt install chromium"
)


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
    troubles: list[str] = []
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_S * 1000)
    opened.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    opened.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda asked: _note_foreign(asked.url, troubles))
    yield opened
    context.close()
    assert troubles == []


def _note_foreign(url: str, troubles: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "about:")):
        troubles.append(f"asked {url}")


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


def test_a_batch_is_seen_to_end_without_loading_the_page_again(
    server: LiveServer, page: Page
) -> None:
    page.goto(server.address)
    created = create(server.address, 5, "seen to end")
    row = page.locator(f"tr[data-href$='{created}']")
    expect(row).to_contain_text("completed", timeout=PATIENCE_S * 1000)
    expect(row).to_contain_text("5 of 5")
    row.get_by_role("link", name="seen to end").click()
    expect(page.locator("h1")).to_have_text("seen to end")
    page.get_by_role("link", name="Read the results").click()
    expect(page.locator("article")).to_have_count(5)


def test_a_file_is_chosen_checked_and_made_a_batch(server: LiveServer, page: Page) -> None:
    request = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": request}
    chosen: FilePayload = {
        "name": "night.jsonl",
        "mimeType": "application/jsonl",
        "buffer": msgspec.json.encode(line),
    }
    page.goto(server.address)
    page.get_by_role("link", name="New batch").click()
    page.get_by_label("A file of requests").set_input_files(chosen)
    page.get_by_role("button", name="Upload and check").click()
    expect(page.locator("h1")).to_have_text("night.jsonl")
    assert violations(page) == []
    page.get_by_role("button", name="Run the first 5 now").click()
    expect(page.locator("article .text").last).to_contain_text("hello")
    assert violations(page) == []
    page.get_by_label("Name").fill("from a browser")
    page.get_by_role("button", name="Create the batch").click()
    expect(page.locator("h1")).to_have_text("from a browser")
    expect(page.locator("#batch")).to_contain_text("completed", timeout=PATIENCE_S * 1000)


def test_an_upload_that_is_refused_says_why_beside_the_button(
    server: LiveServer, page: Page
) -> None:
    page.goto(f"{server.address}/console/new")
    empty: FilePayload = {"name": "empty.jsonl", "mimeType": "text/plain", "buffer": b""}
    page.get_by_label("A file of requests").set_input_files(empty)
    page.get_by_role("button", name="Upload and check").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose a file with requests")
    expect(page.get_by_role("button", name="Upload and check")).to_be_enabled()


def test_chosen_batches_stay_chosen_while_the_list_moves_and_are_deleted_together(
    server: LiveServer, page: Page
) -> None:
    mine = [create(server.address, 1, f"chosen {number}") for number in range(2)]
    page.goto(f"{server.address}/?q=chosen")
    delete = page.get_by_role("button", name="Delete", exact=True)
    expect(delete).to_be_disabled()
    for each in mine:
        page.locator(f"input[value='{each}']").check()
        row = page.locator(f"tr[data-href$='{each}']")
        expect(row).to_contain_text("completed", timeout=PATIENCE_S * 1000)
    for each in mine:
        expect(page.locator(f"input[value='{each}']")).to_be_checked()
    expect(page.locator("[data-chosen]")).to_have_text("With 2 chosen:")
    assert violations(page) == []
    page.evaluate("window.confirm = (text) => { window.asked = text; return false; }")
    delete.click()
    assert "Nobody can bring them back" in page.evaluate("window.asked")
    page.evaluate("window.confirm = () => true")
    delete.click()
    expect(page.get_by_role("status").last).to_contain_text("2 batches deleted.")
    expect(page.get_by_role("heading", name="No batch is like that")).to_be_visible()


def test_a_page_is_walked_by_keys(server: LiveServer, page: Page) -> None:
    create(server.address, 1, "by keys")
    page.goto(server.address)
    page.keyboard.press("j")
    address = page.locator("tr.at").get_attribute("data-href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{address}")
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    page.keyboard.press("g")
    page.wait_for_url(f"{server.address}/")


def test_a_key_pressed_before_a_closed_dialog_gives_the_focus_back_is_the_pages(
    server: LiveServer, page: Page
) -> None:
    page.goto(f"{server.address}/console/engines")
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_visible()
    page.evaluate("""() => {
        const dialog = document.querySelector("dialog");
        dialog.close();
        dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "g", bubbles: true }));
    }""")
    page.wait_for_url(f"{server.address}/")


def test_what_others_wrote_runs_nothing_and_loads_nothing(server: LiveServer, page: Page) -> None:
    created = create(server.address, 1, HOSTILE, content=HOSTILE)
    batch = f"{server.address}/console/batches/{created}"
    page.goto(batch)
    expect(page.locator("h1")).to_have_text(HOSTILE)
    expect(page.locator("#batch")).to_contain_text("completed", timeout=PATIENCE_S * 1000)
    page.goto(f"{batch}/lines")
    expect(page.locator("article .text").first).to_contain_text(HOSTILE)
    page.goto(server.address)
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()


def test_plots_are_drawn_and_events_come_without_loading_the_page_again(
    server: LiveServer, page: Page
) -> None:
    waits = create(server.address, 2, "waits", content=f"wait {PATIENCE_S}")
    page.goto(f"{server.address}/console/batches/{waits}")
    expect(page.locator(".events")).to_contain_text("requests may run")
    httpx.post(f"{server.address}/v1/batches/{waits}/pause", json={})
    expect(page.locator(".events")).to_contain_text("Paused")
    httpx.post(f"{server.address}/v1/batches/{waits}/cancel")
    expect(page.locator(".events")).to_contain_text("Cancelled by request")
    plots = page.locator("svg.plot")
    expect(plots).to_have_count(3)
    box = plots.first.bounding_box()
    assert box is not None
    assert (box["width"] > 200, box["height"] > 100) == (True, True)
    assert all(text.strip() for text in page.locator("svg.plot text").all_text_contents())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_keep_the_rules_of_accessibility(
    server: LiveServer, browser: Browser, scheme: str
) -> None:
    created = create(server.address, 2, "accessible")
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    try:
        page = context.new_page()
        paths = ("/", f"/console/batches/{created}", f"/console/batches/{created}/lines")
        for path in (
            *paths,
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
        ):
            page.goto(server.address + path)
            assert violations(page) == [], path
    finally:
        context.close()


def test_many_open_pages_share_few_streams_and_all_stay_up_to_date(
    server: LiveServer, browser: Browser
) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_S * 1000)
    streams: list[str] = []
    pages = [context.new_page() for _ in range(8)]
    try:
        for page in pages:
            page.on("request", lambda asked: _note_stream(asked, streams))
            page.goto(f"{server.address}/?q=many")
            expect(page.locator("#connection")).to_have_text("")
        created = create(server.address, 1, "many open pages")
        for page in pages:
            row = page.locator(f"tr[data-href$='{created}']")
            expect(row).to_be_visible(timeout=PATIENCE_S * 1000)
        assert len(streams) == 4, "of the six connections that a browser opens to one host"
    finally:
        context.close()


def _note_stream(asked: Request, streams: list[str]) -> None:
    if asked.resource_type == "eventsource":
        streams.append(asked.url)


HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_page_closes_its_stream_and_goes_on_when_it_is_seen(
    server: LiveServer, page: Page
) -> None:
    page.goto(f"{server.address}/?q=hidden")
    expect(page.locator("#connection")).to_have_text("")
    with page.expect_event("requestfailed", lambda asked: asked.resource_type == "eventsource"):
        page.evaluate(HIDE, True)
    created = create(server.address, 1, "hidden page")
    row = page.locator(f"tr[data-href$='{created}']")
    with page.expect_request(lambda asked: asked.resource_type == "eventsource"):
        expect(row).to_be_hidden()
        page.evaluate(HIDE, False)
    expect(row).to_be_visible(timeout=PATIENCE_S * 1000)


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


def test_an_open_page_survives_the_death_of_the_server(tmp_path: Path, page: Page) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    serve = (sys.executable, "-m", "lowtide", "serve", "--json", "--port", str(port))
    command = [*serve, "--data-dir", str(tmp_path / "data")]
    for life in ("first", "second"):
        with (
            (tmp_path / f"{life}.log").open("wb") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=tmp_path) as process,
        ):
            try:
                assert process.stdout is not None
                assert process.stdout.readline()
                if life == "first":
                    page.goto(url)
                    expect(page.locator("#connection")).to_have_text("")
                    process.kill()
                    process.wait()
                    expect(page.locator("#connection")).to_contain_text("Not connected")
                else:
                    expect(page.locator("#connection")).to_have_text("")
            finally:
                process.kill()
