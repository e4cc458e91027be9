"""What twenty open pages, and the history that they show, take from a running batch.

    python -m bench.console_cost pages [--keys] [--seconds S] [--lines N]
    python -m bench.console_cost core [--keys] [--seconds S] [--lines N]
    python -m bench.console_cost history [--seconds S] [--lines N]

One server over SQLite with an instant engine, and one batch that is large enough; then turns within
them (bench/turns.py). `pages`: the streams of twenty pages, half of them the list of batches with a
full page of rows, half the batch's own page; read by bare sockets, so that the readers cost next to
nothing. With `--keys` each of the twenty has signed in for itself. `core`: the same pages beside
200 requests a second, where the server has little else to do: which share of a core they take, and
how much is sent; other programs on the machine hardly move it. `history`: the two loops that write
it, on and off. Prints progress, then one JSON line. It takes S seconds and about one more for each
25,000 lines.
"""

import argparse
import json
import re
import selectors
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from bench.backend import MODEL
from bench.console import CHAT, SETTINGS, WINDOW, connect, create, wait
from bench.hostile_tenants import admin_key
from bench.processes import Server, backend, serving
from bench.switched_server import SWITCH
from bench.turns import Pair, cpu_s, pairs, summary, tell
from lowtide import limits

PAGES: Final = 20
OTHERS: Final = 60  # small batches beside the large one: the list has a full page of rows
PAGES_STRETCH_S: Final = 4.0  # two looks of each page
HISTORY_STRETCH_S: Final = 5.0  # one look of each loop
SLOW_MS, SLOW_WINDOW = 50.0, 10  # of the engine of `core`: 200 requests a second
CORE_STRETCH_S: Final = 16.0  # eight looks of each page
CORE_SETTLES_S: Final = 4.0  # pages that were just opened are sent whole
STARTS_S: Final = 600.0  # for the batch to be validated and planned
WARMS_S: Final = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("pages", "core", "history"))
    parser.add_argument("--keys", action="store_true", help="each page with a session of its own")
    parser.add_argument("--seconds", type=float, default=150.0, help="of turns")
    parser.add_argument("--lines", type=int, default=2_000_000, help="of the batch")
    asked = parser.parse_args()
    delay_ms, window = (SLOW_MS, SLOW_WINDOW) if asked.what == "core" else (0.0, WINDOW)
    with tempfile.TemporaryDirectory() as name, backend(delay_ms) as engine:
        folder, settings = Path(name), SETTINGS
        settings += f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {window}\n'
        key = admin_key(folder) if asked.keys else None
        if key is not None:
            settings += '[auth]\nmode = "keys"\n'
        switch = folder / SWITCH
        switch.touch()
        with (
            serving(folder, settings, "bench.switched_server") as server,
            connect(server.address) as client,
        ):
            if key is not None:
                client.headers["authorization"] = f"Bearer {key}"
            batch_id = running_batch(client, folder, asked.lines)
            beside = Beside(engine, client, server, batch_id, asked.seconds)
            match asked.what:
                case "pages":
                    measured = summary(beside.pages(key))
                case "core":
                    measured = beside.core(key)
                case _:
                    measured = summary(beside.history(switch))
    reported = {"what": asked.what, "keys": asked.keys, "lines": asked.lines}
    print(json.dumps(reported | measured))


class Beside:
    """Turns beside a running batch."""

    def __init__(
        self, engine: str, client: httpx.Client, server: Server, batch_id: str, seconds: float
    ) -> None:
        self._served = engine.removesuffix("/v1") + "/served"
        self._client = client
        self._server = server
        self._batch_id = batch_id
        self._seconds = seconds

    def pages(self, key: str | None) -> list[Pair]:
        """With the pages open, and without."""
        with self._readers(key) as readers:
            measured = self._pairs(readers.switch, PAGES_STRETCH_S)
            tell(f"{readers.events:,} events, {readers.bytes:,} bytes")
            if not readers.events:
                raise RuntimeError("no open page was told anything")
        return measured

    def core(self, key: str | None) -> dict[str, Any]:
        """What the open pages take of a core, in percent, and what all of them are sent in the time
        between two looks of a page, in KB; each the mean and what each stretch had.
        """
        shares: dict[bool, list[float]] = {True: [], False: []}
        sent_kb: list[float] = []
        until = time.monotonic() + self._seconds
        with self._readers(key) as readers:
            while time.monotonic() < until:
                for is_on in (True, False, False, True):
                    readers.switch(is_on)
                    time.sleep(CORE_SETTLES_S)
                    begun, cpu, sent = time.monotonic(), cpu_s(self._server.pid), readers.bytes
                    time.sleep(CORE_STRETCH_S)
                    took = time.monotonic() - begun
                    shares[is_on].append(100 * (cpu_s(self._server.pid) - cpu) / took)
                    if is_on:
                        looks = took / limits.CONSOLE_REFRESH_S
                        sent_kb.append((readers.bytes - sent) / looks / 1000)
        with_pages, without = (statistics.mean(shares[is_on]) for is_on in (True, False))
        return {
            "percent_of_a_core": round(with_pages - without, 2),
            "kb_between_looks": round(statistics.mean(sent_kb), 1),
            "with": [round(each, 2) for each in shares[True]],
            "without": [round(each, 2) for each in shares[False]],
        }

    def _readers(self, key: str | None) -> "Readers":
        """The twenty pages, each with a session of its own where there is a key."""
        paths = ["/"] * (PAGES // 2) + [f"/console/batches/{self._batch_id}"] * (PAGES // 2)
        cookies = [sign_in(self._server.address, key) if key else "" for _ in paths]
        return Readers(self._server.address, list(zip(paths, cookies, strict=True)))

    def history(self, switch: Path) -> list[Pair]:
        """With history written, and without."""

        def turn(is_on: bool) -> None:
            if is_on:
                switch.touch()
            else:
                switch.unlink(missing_ok=True)

        return self._pairs(turn, HISTORY_STRETCH_S)

    def _pairs(self, turn: Callable[[bool], None], stretch_s: float) -> list[Pair]:
        with httpx.Client() as engine:

            def served() -> int:
                return int(engine.get(self._served).json()["served"])

            return pairs(
                turn, served, self._server.pid, stretch_s=stretch_s, seconds=self._seconds,
                has_ended=lambda: _status(self._client, self._batch_id) != "in_progress",
            )  # fmt: skip


# ---- the batch


def running_batch(client: httpx.Client, folder: Path, lines: int) -> str:
    """A large batch that has run for some seconds, and small ones before it."""
    small = _upload(client, folder, 1)
    for _ in range(OTHERS):
        wait(client, create(client, small))
    batch_id = create(client, _upload(client, folder, lines))
    until = time.monotonic() + STARTS_S
    while _status(client, batch_id) == "validating" and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(WARMS_S)
    if (status := _status(client, batch_id)) != "in_progress":
        raise RuntimeError(f"the batch is {status}: give it more lines")
    return batch_id


def _upload(client: httpx.Client, folder: Path, lines: int) -> str:
    """Like `console.upload`, made faster: a line is a template."""
    path = folder / "input.jsonl"
    body = f'"body":{{"model":"{MODEL}","max_tokens":64,"messages":[{{"role":"user","content":"'
    text = '%d: write about the sea at night."}]}}\n'
    line = '{"custom_id":"r-%d","method":"POST","url":"' + CHAT + '",' + body + text
    with path.open("w") as stream:
        stream.writelines(line % (number, number) for number in range(lines))
    with path.open("rb") as content:
        form = {"purpose": "batch"}
        answer = client.post("/v1/files", data=form, files={"file": ("input.jsonl", content)})
    path.unlink()
    return str(answer.json()["id"])


def _status(client: httpx.Client, batch_id: str) -> str:
    return str(client.get(f"/v1/batches/{batch_id}").json()["status"])


# ---- the pages


def sign_in(address: str, key: str) -> str:
    """The cookie of a new session, as a browser sends it."""
    with httpx.Client(base_url=address) as client:
        page = client.get("/console/sign-in", headers={"accept": "text/html"}).text
        csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
        assert csrf is not None, "the page has a form"
        fields = {"key": key, "next": "/", "csrf": csrf[1]}
        answer = client.post("/console/sign-in", data=fields)
        return str(answer.headers["set-cookie"]).partition(";")[0]


class Readers:
    """Streams of pages, opened and closed together; one thread reads whatever comes."""

    def __init__(self, address: str, pages: Sequence[tuple[str, str]]) -> None:
        """`pages`: the path and the cookie of each."""
        where = urlsplit(address)
        self._where = (where.hostname or "", where.port or 80)
        self._pages = pages
        self._open: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._ends = threading.Event()
        self.events = 0
        self.bytes = 0

    def __enter__(self) -> "Readers":
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(5)
        self.switch(False)

    def switch(self, is_on: bool) -> None:
        """Opens all pages, or closes all of them."""
        for each in self._open:
            self._selector.unregister(each)
            each.close()
        self._open = [self._connect(*page) for page in self._pages] if is_on else []

    def _connect(self, path: str, cookie: str) -> socket.socket:
        opened = socket.create_connection(self._where)
        asked = f"GET /console/live?of={quote(path)} HTTP/1.1\r\nhost: {self._where[0]}\r\n"
        asked += f"cookie: {cookie}\r\n" if cookie else ""
        opened.sendall(f"{asked}accept: text/event-stream\r\n\r\n".encode())
        opened.setblocking(False)
        self._selector.register(opened, selectors.EVENT_READ)
        return opened

    def _read(self) -> None:
        while not self._ends.is_set():
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    block = key.fileobj.recv(1 << 20)
                except OSError:  # closed meanwhile
                    continue
                self.bytes += len(block)
                self.events += block.count(b"data: {")


if __name__ == "__main__":
    main()
