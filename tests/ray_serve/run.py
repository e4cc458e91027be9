"""A batch on Ray Serve while its application is scaled, loses a replica, and loses its head.

    python tests/ray_serve/run.py --lines 3000
    python tests/ray_serve/run.py --scaler      (that of deploy/ray/lowtide.toml scales instead)
    python tests/ray_serve/run.py --model demo --lines 200

Ray from PyPI on 127.0.0.1, with the files of deploy/ray and an engine in each replica: a simulated
one, or with `--model` the embedded llama.cpp with that model, as `lowtide serve` has it. And
`lowtide serve` beside it, whose source asks Ray's dashboard. Prints a table. Exit code 1 if a line
was lost, came twice, or failed.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
from cluster import BIN, DEPLOY, PATIENCE_S, Cluster, cluster, until

SIMULATED: Final = "m"
SOON: Final = "[scale]\ncold_start_s = 10\nhold_s = 5\n"
QUIET_S: Final = 3.0
"""Looked at an application without a replica, to see that nothing fails meanwhile."""


class Server:
    """`lowtide serve` with one source, and a batch that runs on it."""

    def __init__(
        self, folder: Path, dashboard: str, lines: int, model: str, *, scales: bool
    ) -> None:
        """`scales`: with the scaler that the settings of deploy/ have in comments."""
        self.folder, self.lines, self._model = folder, lines, model
        text = (DEPLOY / "lowtide.toml").read_text()
        text = text.replace("http://ray-head:8265", dashboard).replace("512", "64")
        if scales:
            source, scaler = text.split("# [[scaler]]")
            text = f"{source}[[scaler]]{scaler.replace('# ', '')}{SOON}"
        (folder / "lowtide.toml").write_text(text.replace("Qwen/Qwen2.5-7B-Instruct", model))
        with (folder / "serve.log").open("wb") as log:
            self._serve = subprocess.Popen(
                [BIN / "lowtide", "serve", "--port", "0", "--json"],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._serve.stdout is not None
        self._address = json.loads(self._serve.stdout.readline())["address"]
        self._http = httpx.Client(base_url=self._address, timeout=10, trust_env=False)
        self._run: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Begins the batch."""
        with (self.folder / "in.jsonl").open("w") as out:
            for number in range(self.lines):
                message = {"role": "user", "content": f"Say {number}"}
                body = {"model": self._model, "messages": [message], "max_tokens": 32}
                out.write(json.dumps({"custom_id": f"r{number}", "body": body}) + "\n")
        with (self.folder / "run.log").open("wb") as log:
            self._run = subprocess.Popen(
                [BIN / "lowtide", "run", "in.jsonl", "-o", "out.jsonl", "--server", self._address],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def batch(self) -> dict[str, Any]:
        """The batch; empty until it is made."""
        found = self._http.get("/v1/batches").json()["data"]
        return found[0] if found else {}

    def done(self) -> int:
        counts: dict[str, int] = self.batch().get("request_counts") or {}
        return counts.get("completed", 0) + counts.get("failed", 0)

    def engines(self) -> list[str]:
        found = self._http.get("/v1/admin/engines").json()
        return [each["name"] for each in found["data"] if each.get("source")]

    def ended(self) -> int:
        """Waits for the batch; the exit code of `lowtide run`."""
        assert self._run is not None
        return self._run.wait(PATIENCE_S * 2)

    def close(self) -> None:
        self._http.close()
        for process in (self._run, self._serve):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


@contextlib.contextmanager
def serving(ray: Cluster, lines: int, model: str, *, scales: bool) -> Iterator[Server]:
    folder = ray.folder / "lowtide"
    folder.mkdir()
    server = Server(folder, ray.dashboard, lines, model, scales=scales)
    try:
        yield server
    finally:
        server.close()


class Story:
    """What happens, step by step, and what was seen."""

    def __init__(self, ray: Cluster, server: Server) -> None:
        self.ray, self.server = ray, server
        self._began_s = time.monotonic()
        self.rows: list[tuple[float, str, str]] = []

    def tell(self, what: str, seen: str) -> None:
        at_s = time.monotonic() - self._began_s
        self.rows.append((at_s, what, seen))
        print(f"{at_s:7.1f} s  {what}: {seen}", file=sys.stderr, flush=True)

    def reach(self, share: float) -> None:
        """Waits until that share of the lines is done."""
        wanted = int(self.server.lines * share)
        until(lambda: self.server.done() >= wanted, f"{share:.0%} of the lines are done")

    def awake(self, replicas: int, what: str) -> None:
        """Scales up, and tells how long work took from the first replica that runs."""
        before = self.server.done()
        self.ray.scale(replicas)
        until(lambda: self.ray.running(), "a replica runs")
        ready_s = time.monotonic()
        until(self.server.engines, "Lowtide knows the engine")
        until(lambda: self.server.done() > before, "a line is done")
        waited_s = time.monotonic() - ready_s
        self.tell(what, f"first answers {waited_s:.1f} s after the first replica ran")

    def asleep(self, what: str) -> None:
        """Scales to zero under way, and looks whether anything fails."""
        self.ray.scale(0)
        until(lambda: not self.server.engines(), "the engine is gone")
        until(lambda: not self.ray.replicas(), "Ray has no replica")
        time.sleep(QUIET_S)
        before = self.server.done()
        time.sleep(QUIET_S)
        batch = self.server.batch()
        assert self.server.done() == before, "lines were done by nobody"
        self.tell(what, f"{batch['status']}, {before} lines done, it waits: {batch.get('reason')}")

    def at_zero(self) -> None:
        """Begins the batch while there is no replica."""
        self.ray.scale(0)
        until(lambda: not self.ray.replicas(), "Ray has no replica")
        self.server.begin()
        until(lambda: self.server.batch().get("status") == "in_progress", "the batch is accepted")
        self.tell("made at zero replicas", str(self.server.batch().get("reason")))

    def play_scaler(self) -> int:
        """Lowtide scales by itself; the exit code of `lowtide run`."""
        self.at_zero()
        until(lambda: self.ray.replicas(), "Lowtide has asked for a replica")
        self.tell("asked for by Lowtide", f"{len(self.ray.replicas())} replicas")
        until(self.server.done, "a line is done")
        self.tell("first answers", f"{len(self.ray.running())} replicas run")
        code = self.server.ended()
        self.tell("the batch ended", f"lowtide run exits with {code}")
        until(lambda: not self.ray.replicas(), "Lowtide has asked for none")
        self.tell("given back by Lowtide", "no replica")
        return code

    def play(self) -> int:
        """All of it; the exit code of `lowtide run`."""
        self.at_zero()
        self.awake(2, "0 -> 2")
        self.reach(0.2)
        killed = self.ray.running()[0]
        os.kill(killed, signal.SIGKILL)
        self.tell("a replica killed", f"at {self.server.done()} lines")
        until(lambda: killed not in self.ray.running(), "Ray sees it")
        self.reach(0.35)
        self.asleep("2 -> 0")
        self.awake(3, "0 -> 3")
        self.reach(0.6)
        count, at = self.ray.kill_head(), self.server.done()
        self.tell("the head killed", f"{count} processes, at {at} lines")
        self.ray.start()
        self.awake(2, "started again, and deployed")
        code = self.server.ended()
        self.tell("the batch ended", f"lowtide run exits with {code}")
        self.ray.scale(0)
        until(lambda: not self.server.engines(), "the engine is gone")
        self.tell("2 -> 0", "no engine")
        return code


def engine_command(model: str) -> str:
    """What starts the engine of one replica, with `{port}` where its port goes, and `{folder}` for
    one that is removed in the end.
    """
    if model == SIMULATED:
        return f"{BIN}/lowtide simulate-engine --port {{port}} --model {model} --max-num-seqs 16"
    return f"{BIN}/lowtide serve --model {model} --port {{port}} --data-dir {{folder}}/{{port}}"


def check(server: Server) -> list[str]:
    """What is wrong with the results."""
    out = (server.folder / "out.jsonl").read_text().splitlines()
    came = Counter(json.loads(line)["custom_id"] for line in out)
    wanted = {f"r{number}" for number in range(server.lines)}
    failed = sum(json.loads(line)["response"]["status_code"] != 200 for line in out)
    found = {
        "lost": len(wanted - came.keys()),
        "doubled": sum(count > 1 for count in came.values()),
        "failed": failed,
    }
    print(f"{server.lines} lines: " + ", ".join(f"{count} {name}" for name, count in found.items()))
    return [name for name, count in found.items() if count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=3000)
    parser.add_argument("--scaler", action="store_true")
    parser.add_argument("--model", default=SIMULATED, help="a model of the embedded llama.cpp")
    args = parser.parse_args()
    with (
        cluster(engine_command(args.model)) as ray,
        serving(ray, args.lines, args.model, scales=args.scaler) as server,
    ):
        story = Story(ray, server)
        try:
            code = story.play_scaler() if args.scaler else story.play()
            wrong = check(server)
        except (TimeoutError, AssertionError):
            for name in ("lowtide/serve.log", "lowtide/run.log", "head.log"):
                print(f"---- {name}\n{(ray.folder / name).read_text()[-4000:]}", file=sys.stderr)
            raise
        print("| s | what | seen |\n|---:|---|---|")
        for at_s, what, seen in story.rows:
            print(f"| {at_s:.1f} | {what} | {seen} |")
    return 1 if code or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
