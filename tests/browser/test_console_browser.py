"""The console in a real browser: it keeps itself up to date, and obeys nothing that others wrote.

One test of each page and of each action; other ways to the same facts are in console_variants.py.
"""

import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import msgspec
from console_pages import MODEL, create, needs_browser, violations, violations_of_all_pages
from playwright.sync_api import Browser, FilePayload, Page, Request, expect

from testkit.live_server import LiveServer
from testkit.patience import PATIENCE_S

HOSTILE: Final = '<img src="http://elsewhere.test/x" onerror="alert(1)"><script>alert(2)</script>'
STREAMS_MAX: Final = 4
"""Pages of one browser that have a stream, see static/console.js; the others poll."""

pytestmark = needs_browser


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


def test_a_table_stays_here_and_the_page_has_the_command_for_it(
    server: LiveServer, page: Page
) -> None:
    name = "it's.csv"
    chosen: FilePayload = {"name": name, "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"}
    page.goto(f"{server.address}/console/new")
    page.get_by_label("A file of requests").set_input_files(chosen)
    page.get_by_role("button", name="Upload and check").click()
    expect(page.get_by_role("alert")).to_contain_text(f"{name} is a table")
    command = page.locator("#table code")
    expect(command).to_be_visible()
    expect(command).to_contain_text(f"lowtide run {shlex.quote(name)} -o ")
    assert violations(page) == []


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


def test_a_click_on_the_strip_leads_to_that_line_whose_json_can_be_copied(
    server: LiveServer, page: Page
) -> None:
    batch = f"{server.address}/console/batches/{create(server.address, 4, 'four lines')}"
    page.goto(batch)
    strip = page.locator(".plot-strip a")
    expect(strip).to_have_attribute("data-count", "4")
    cell = strip.locator("rect")
    box = cell.bounding_box()
    assert box is not None
    cell.click(position={"x": 0.6 * box["width"], "y": 5})
    page.wait_for_url(f"{batch}/lines?first=2")
    expect(page.locator("article .id")).to_have_text(["r2", "r3"])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("summary", has_text="JSON").first.click()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = msgspec.json.decode(page.evaluate("navigator.clipboard.readText()"))
    assert copied["result"]["custom_id"] == "r2"


def test_pages_keep_the_rules_of_accessibility(server: LiveServer, browser: Browser) -> None:
    assert violations_of_all_pages(server, browser) == {}


def test_many_open_pages_share_few_streams_and_all_stay_up_to_date(
    server: LiveServer, browser: Browser
) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_S * 1000)
    streams: list[str] = []
    pages = [context.new_page() for _ in range(STREAMS_MAX + 1)]
    try:
        for page in pages:
            page.on("request", lambda asked: _note_stream(asked, streams))
            page.goto(f"{server.address}/?q=many")
            expect(page.locator("#connection")).to_have_text("")
        created = create(server.address, 1, "many open pages")
        for page in pages:
            row = page.locator(f"tr[data-href$='{created}']")
            expect(row).to_be_visible(timeout=PATIENCE_S * 1000)
        assert len(streams) == STREAMS_MAX, (
            "of the six connections that a browser opens to one host"
        )
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


def test_a_narrow_screen_shows_every_page_and_cuts_no_table(
    server: LiveServer, browser: Browser
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.address)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(f"{server.address}/console/admin/projects/proj_default")
    page.get_by_label("What it is for").fill("a narrow screen")
    page.get_by_role("button", name="Create the key").click()
    page.locator(".once").get_by_role("button", name="Copy").click()
    secret = page.locator(".secret").text_content()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    for path in ("/console/admin/projects/proj_default", "/console/usage", "/console/week"):
        page.goto(server.address + path)
        for link in page.get_by_role("navigation", name="Pages").get_by_role("link").all():
            expect(link).to_be_in_viewport(ratio=1)
        tables = "[...document.querySelectorAll('.scroll')]"
        cut = f"{tables}.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel)"
        assert page.evaluate(cut) == []
        assert violations(page) == []
    expect(page.locator("[data-zone]")).not_to_be_empty()
    context.close()
