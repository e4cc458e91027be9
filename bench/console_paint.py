"""How soon a browser shows something of the console's pages.

    python -m bench.console_paint [--loads N]

One real server on this machine, sixty small batches that have ended, and Debian's `chromium`: the
first contentful paint of each page as the browser itself tells it, in milliseconds after it began
to load. Each load has a browser context of its own, so that nothing is in its cache. Prints one
JSON line. Half a minute.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from bench.backend import MODEL
from bench.console import SETTINGS, WINDOW, connect, create, upload, wait
from bench.processes import backend, serving

OTHERS: Final = 60
LINES: Final = 2_000
PAINT: Final = """() => new Promise((told) => {
    const first = () => performance.getEntriesByName("first-contentful-paint")[0];
    const ask = () => first() ? told(first().startTime) : setTimeout(ask, 5);
    ask();
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--loads", type=int, default=20, help="of each page")
    loads = parser.parse_args().loads
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("No chromium here: apt install chromium")
    with tempfile.TemporaryDirectory() as name, backend() as engine, sync_playwright() as play:
        folder = Path(name)
        replica = f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n'
        with serving(folder, SETTINGS + replica) as server, connect(server.address) as client:
            small = upload(client, folder, 1)
            for _ in range(OTHERS):
                wait(client, create(client, small))
            batch_id = create(client, upload(client, folder, LINES))
            wait(client, batch_id)
            chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = f"{server.address}/console/batches/{batch_id}"
            pages = {"list": server.address, "batch": page, "results": f"{page}/lines"}
            print(json.dumps({what: paints(chromium, at, loads) for what, at in pages.items()}))
            chromium.close()


def paints(chromium: Browser, address: str, loads: int) -> dict[str, float]:
    """The median and the largest of so many loads, after one that warms the server."""
    times = []
    for _ in range(loads + 1):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(address, wait_until="commit")
        times.append(page.evaluate(PAINT))
        context.close()
    return {"median": round(statistics.median(times[1:]), 1), "most": round(max(times[1:]), 1)}


if __name__ == "__main__":
    main()
