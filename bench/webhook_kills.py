"""Webhooks across kills: `make webhook-kills`. Server and receiver are real, the model is an echo.

Batches are created with idempotency keys while the server is killed (SIGKILL) and started again, as
often as asked, spread over the deliveries. The receiver is written with the openai package: an
event counts once `client.webhooks.unwrap()` has verified it. It answers every fifth event with 503
when it comes first. The run fails unless each batch was told, under one id and by its own end, no
signature was wrong, and there are exactly as many batches as were meant.
"""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import openai

from testkit.echo_engine import running_echo_engine
from testkit.patience import PATIENCE_S

_REFUSED_EVERY: Final = 5
_GOOD: Final = (
    b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":'
    b'{"model":"m","messages":[{"role":"user","content":"hello"}]}}\n'
)
_BAD: Final = b"no JSON\n"


class Hooks:
    """The receiver: what was verified, by batch."""

    def __init__(self) -> None:
        self.secret = ""
        self.events: dict[str, list[tuple[str, str]]] = defaultdict(list)
        """Id and type of each verified event, by batch, in the order in which they came."""
        self.forged = 0
        self.refused = 0
        self._client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1:1")
        self._lock = threading.Lock()
        self.came = threading.Condition(self._lock)

    def receive(self, body: bytes, headers: dict[str, str]) -> int:
        """The status to answer with."""
        try:
            event: Any = self._client.webhooks.unwrap(body, headers, secret=self.secret)
        except openai.InvalidWebhookSignatureError:
            self.forged += 1
            return 400
        with self.came:
            heard = self.events[event.data.id]
            is_refused = not heard and len(self.events) % _REFUSED_EVERY == 0
            heard.append((event.id, event.type))
            self.refused += is_refused
            self.came.notify_all()
        return 503 if is_refused else 204

    def wait_for(self, batches: int) -> None:
        """Until so many batches were heard of."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.events) >= batches, PATIENCE_S), (
                f"{len(self.events)} of {batches} batches were heard of"
            )


@contextmanager
def receiving() -> Iterator[tuple[Hooks, str]]:
    """A receiver, and its address."""
    hooks = Hooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(hooks.receive(body, dict(self.headers.items())))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Into no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hooks, f"http://127.0.0.1:{server.server_port}/hooks"
        server.shutdown()


class KilledServer:
    """`lowtide serve` on one data directory and one port, killed and started again."""

    def __init__(self, folder: Path, engine_url: str) -> None:
        self._config, self._log = folder / "lowtide.toml", (folder / "server.log").open("ab")
        self._port = 0
        self._text = (
            f"[server]\ndata_dir = {json.dumps(str(folder / 'data'))}\nport = PORT\n"
            '[webhooks]\nallow_networks = ["127.0.0.0/8"]\n[dispatch]\ncommit_interval_s = 0.1\n'
            f'[[replica]]\nurl = {json.dumps(engine_url)}\nmodels = ["m"]\nwindow = 16\n'
        )
        self.url = ""
        self.kills = 0
        self.start()

    def start(self) -> None:
        self._config.write_text(self._text.replace("PORT", str(self._port)))
        command = [sys.executable, "-m", "lowtide", "serve", "--config", str(self._config)]
        self._process = subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=self._log
        )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if readable else b""
        assert line, f"lowtide serve did not get ready: {self._log.name}"
        self.url = json.loads(line)["address"]
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, and a new start."""
        self._process.kill()
        self._ended()
        self.kills += 1
        self.start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._ended()
        self._log.close()

    def _ended(self) -> None:
        self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


def insist(server: KilledServer, method: str, path: str, **rest: Any) -> Any:
    """A call that is made again until the server answers; 409 is what a program must not get."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = httpx.request(method, f"{server.url}{path}", timeout=30, **rest)
            if answer.status_code < 500:
                assert answer.status_code == 200, answer.text
                return answer.json()
        except httpx.TransportError:
            pass  # it was killed, or is about to come
        assert time.monotonic() < give_up_at, f"{method} {path} got no answer"
        time.sleep(0.05)


def create_all(server: KilledServer, count: int, made: dict[str, str]) -> None:
    """So many batches, each with a key of its own; `made`: by id, the event that it ends with."""
    inputs = []
    for name, content in (("good.jsonl", _GOOD), ("bad.jsonl", _BAD)):
        form = {"files": {"file": (name, content)}, "data": {"purpose": "batch"}}
        headers = {"Idempotency-Key": name}
        inputs.append(insist(server, "POST", "/v1/files", headers=headers, **form)["id"])
    ends = ("batch.completed", "batch.failed")
    for number in range(count):
        body = {"input_file_id": inputs[number % 2], "endpoint": "/v1/chat/completions"}
        headers = {"Idempotency-Key": f"batch-{number}"}
        batch = insist(server, "POST", "/v1/batches", json=body, headers=headers)
        made[batch["id"]] = ends[number % 2]


def run(count: int, kills: int, folder: Path) -> dict[str, Any]:
    """What came of it. Raises AssertionError where a promise was broken."""
    with running_echo_engine() as engine, receiving() as (hooks, address):
        server = KilledServer(folder, engine.url)
        begun = time.monotonic()
        webhook = insist(server, "POST", "/v1/webhooks", json={"url": address})
        hooks.secret = webhook["secret"]
        made: dict[str, str] = {}
        creating = threading.Thread(target=create_all, args=(server, count, made), daemon=True)
        creating.start()
        for number in range(1, kills + 1):
            hooks.wait_for(number * count // (kills + 1))
            server.kill()
        hooks.wait_for(count)
        creating.join(PATIENCE_S)
        path = f"/v1/webhooks/{webhook['id']}/deliveries?state=pending"
        while insist(server, "GET", path)["data"]:
            time.sleep(0.2)
        took_s = time.monotonic() - begun
        batches = _count_batches(server)
        server.stop()
    return _checked(hooks, made, count, batches) | {
        "kills": server.kills,
        "seconds": round(took_s, 1),
    }


def _count_batches(server: KilledServer) -> int:
    count, after = 0, ""
    while True:
        page = insist(server, "GET", f"/v1/batches?limit=100{after}")
        count += len(page["data"])
        if not page["has_more"]:
            return count
        after = f"&after={page['last_id']}"


def _checked(hooks: Hooks, made: dict[str, str], count: int, batches: int) -> dict[str, Any]:
    assert hooks.forged == 0, f"{hooks.forged} signatures were wrong"
    assert batches == len(made) == count, f"{batches} batches, {len(made)} known, {count} meant"
    assert set(hooks.events) == set(made), "an event of a batch is missing, or of none"
    for batch_id, events in hooks.events.items():
        assert len(set(events)) == 1, f"{batch_id} was told as {events}"
        assert events[0][1] == made[batch_id], f"{batch_id}: {events[0]}, not {made[batch_id]}"
    times = Counter(len(events) for events in hooks.events.values())
    return {
        "batches": count,
        "verified": sum(len(events) for events in hooks.events.values()),
        "refused_first": hooks.refused,
        "by_times_delivered": dict(sorted(times.items())),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(asked.batches, asked.kills, Path(folder))), flush=True)
    return 0


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
