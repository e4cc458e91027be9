"""What the console's pages take.

    python -m bench.console [--lines N] [--batches N]

One real server with an instant backend. First a batch of a million lines: pages of its results at
the beginning, in the middle and at the end, and one line by its `custom_id`. Then the list with ten
thousand batches, that have ended and that wait. Prints progress, then one JSON line. Minutes. What
open pages take from a running batch is measured by `bench.console_cost`.
"""

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx

from bench.backend import MODEL
from bench.processes import backend, serving
from bench.turns import tell

CHAT: Final = "/v1/chat/completions"
WINDOW: Final = 64
REQUESTS: Final = 40  # at each page, one after the other
WARM: Final = 3  # before these
POLL_S: Final = 0.05
RUN_TIMEOUT_S: Final = 600.0
SETTLES_S: Final = 5.0  # for one batch of one line to end, where an engine is there
SETTINGS: Final = (
    "[limits]\nrequests_per_batch = 10000000\nfile_bytes = 4000000000\n"
    "enqueued_tokens_per_model = 10000000000\nbatches_per_hour = 1000000\n"
    "unfinished_batches = 1000000\ncontrol_calls_per_minute = 10000000\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=10_000)
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, backend() as engine:
        replica = f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n'
        with serving(Path(folder), SETTINGS + replica) as server:
            figures["lines"] = asked.lines
            figures["pages_ms"] = results_pages(server.address, Path(folder), asked.lines)
    figures["batches"] = asked.batches
    with tempfile.TemporaryDirectory() as folder, backend() as engine:
        figures["ended_ms"] = long_list(Path(folder), asked.batches, engine)
    with tempfile.TemporaryDirectory() as folder:
        # Nothing listens there: every batch waits, and the worker reads all of them for its plans.
        nobody = "http://127.0.0.1:9/v1"
        figures["waiting_ms"] = long_list(Path(folder), asked.batches, nobody)
    print(json.dumps(figures))


# ---- pages


def results_pages(address: str, folder: Path, lines: int) -> dict[str, Any]:
    """Times of pages of a large batch's results, by what they show."""
    with connect(address) as client:
        batch_id = create(client, upload(client, folder, lines))
        rate = lines / wait(client, batch_id)
        tell(f"{lines:,} lines at {rate:,.0f} requests/s")
        page = f"/console/batches/{batch_id}"
        asked = {
            "the batch": page,
            "the first results": f"{page}/lines",
            "results in the middle": f"{page}/lines?first={lines // 2}",
            "the last results": f"{page}/lines?first={lines - 100}",
            "a custom_id": f"{page}/lines?custom_id=r-{lines * 2 // 3}",
        }
        return {what: _measured(client, path) for what, path in asked.items()}


def long_list(folder: Path, batches: int, engine: str) -> dict[str, Any]:
    """Times of the list, and of searches in it, with that many batches like one that ran there."""
    replica = f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n'
    settings = SETTINGS + replica
    with serving(folder, settings) as server, connect(server.address) as client:
        first = create(client, upload(client, folder, 1), {"name": "Batch 0"})
        until = time.monotonic() + SETTLES_S
        while not _listed(client, "status=completed") and time.monotonic() < until:
            time.sleep(0.2)
    copy_batch(folder / "data" / "lowtide.db", first, batches - 1)
    with serving(folder, settings) as server, connect(server.address) as client:
        asked = {
            "the list": "/",
            "by state": "/?q=state:completed",
            "by another state": "/?q=state:running",
            "by text, found": f"/?q=Batch+{batches // 2}",
            "by text, not found": "/?q=nothing+is+called+so",
            "by model": f"/?q=model:{MODEL[:4]}",
            "by code of failure": "/?q=error:timeout",
        }
        return {what: _measured(client, path) for what, path in asked.items()}


def copy_batch(database: Path, batch_id: str, copies: int) -> None:
    """Puts further batches like that one into a store that no server has open. Its chunk is not
    copied: creating them one by one takes minutes and shows the same list.
    """
    with closing(sqlite3.connect(database)) as store, store:
        for table, key in (("batches", "id"), ("batch_models", "batch_id")):
            names = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            rows = store.execute(f"SELECT * FROM {table} WHERE {key} = ?", (batch_id,)).fetchall()
            marks = ", ".join("?" * len(names))
            for row in rows:
                one = dict(zip(names, row, strict=True))
                store.executemany(
                    f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})",
                    ([*_copied(one, key, number).values()] for number in range(1, copies + 1)),
                )


def _copied(row: dict[str, Any], key: str, number: int) -> dict[str, Any]:
    copied = row | {key: f"batch_{number:024x}"}
    if "metadata" in row:
        copied["metadata"] = str(row["metadata"]).replace("Batch 0", f"Batch {number}")
    return copied


def connect(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=RUN_TIMEOUT_S)


def _measured(client: httpx.Client, path: str) -> dict[str, float]:
    times: list[float] = []
    size = 0
    for number in range(WARM + REQUESTS):
        begun = time.perf_counter()
        answer = client.get(path, headers={"accept": "text/html"})
        took_ms = (time.perf_counter() - begun) * 1000
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}")
        if number >= WARM:
            times.append(took_ms)
            size = len(answer.content)
    times.sort()
    found = {
        "median": statistics.median(times),
        "p95": times[int(0.95 * REQUESTS)],
        "kb": size / 1000,
    }
    tell(f"{path}: {found}")
    return {name: round(value, 1) for name, value in found.items()}


# ---- batches


def upload(client: httpx.Client, folder: Path, lines: int) -> str:
    path = folder / "input.jsonl"
    with path.open("w") as stream:
        stream.writelines(_line(number) for number in range(lines))
    with path.open("rb") as content:
        form = {"purpose": "batch"}
        answer = client.post("/v1/files", data=form, files={"file": ("input.jsonl", content)})
    path.unlink()
    file_id: str = answer.json()["id"]
    return file_id


def _line(number: int) -> str:
    message = {"role": "user", "content": f"Write line {number} about the sea at night."}
    body = {"model": MODEL, "messages": [message], "max_tokens": 64}
    line = {"custom_id": f"r-{number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line) + "\n"


def create(client: httpx.Client, file_id: str, metadata: dict[str, str] | None = None) -> str:
    asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    answer = client.post("/v1/batches", json=asked | {"metadata": metadata or {}})
    if answer.status_code != 200:
        raise RuntimeError(answer.text)
    batch_id: str = answer.json()["id"]
    return batch_id


def wait(client: httpx.Client, batch_id: str) -> float:
    """Seconds until the batch has ended."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < RUN_TIMEOUT_S:
        status = client.get(f"/v1/batches/{batch_id}").json()["status"]
        if status == "completed":
            return time.perf_counter() - begun
        if status in ("failed", "expired", "cancelled"):
            break
        time.sleep(POLL_S)
    raise RuntimeError(f"batch {batch_id} did not complete")


def _listed(client: httpx.Client, query: str) -> Sequence[Any]:
    found: Sequence[Any] = client.get(f"/v1/batches?{query}&limit=1").json()["data"]
    return found


if __name__ == "__main__":
    main()
