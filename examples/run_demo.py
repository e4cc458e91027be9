"""`make run`: start a Lowtide with the demo model, run the example batch on it, show the results.

The steps are those of any submitter: upload, create, watch, fetch. Each is a `lowtide` command,
shown as it is run, so that a newcomer has seen them once. The server is stopped however this ends.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent.resolve()
INPUT = Path(os.path.relpath(HERE / "batch.jsonl"))
OUT = Path("demo-out")
RESULTS, SERVER_LOG = OUT / "results.jsonl", OUT / "server.log"
LOWTIDE = [sys.executable, "-m", "lowtide"]
SHOWN = 6
STOP_S = 20


def main() -> int:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the server is stopped then, too
    OUT.mkdir(exist_ok=True)
    say("Starting Lowtide with its demo model ...")
    with running_server() as address:
        say(f"Lowtide listens on {address}. Now as a submitter would:")
        os.environ["LOWTIDE_SERVER"] = address
        file_id = ask("files", "upload", str(INPUT))
        batch_id = ask("batches", "create", file_id)
        show("batches", "watch", batch_id)
        code = show("batches", "results", batch_id, "-o", str(RESULTS))
        if RESULTS.is_file() and code in (0, 1):
            show_results()
        say("Stopping the server ...")
    say_goodbye()
    return code


@contextmanager
def running_server() -> Iterator[str]:
    """The address of a server of our own: any free port, its data under `OUT`."""
    command = [*LOWTIDE, "serve", "--json", "--model", "demo", "--port", "0"]
    command += ["--config", str(HERE / "demo.toml"), "--data-dir", str(OUT / "data")]
    with SERVER_LOG.open("w") as log:
        # In a session of its own: Ctrl-C reaches us, and we stop the server in good order.
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    try:
        assert server.stdout is not None
        announcement = server.stdout.readline()
        try:
            yield json.loads(announcement)["address"]
        except (ValueError, KeyError):
            sys.exit(f"The server did not start. Its log says:\n{SERVER_LOG.read_text()}")
    finally:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def ask(*arguments: str) -> str:
    """Run a command that prints one id; the id. What it advises to do next is what we do next."""
    done = run(*arguments, output=subprocess.PIPE)
    say(done.stdout.strip())
    return done.stdout.strip()


def show(*arguments: str) -> int:
    """Run a command for a person to watch; its exit code."""
    return run(*arguments).returncode


def run(*arguments: str, output: int | None = None) -> "subprocess.CompletedProcess[str]":
    say(f"\n$ lowtide {shlex.join(arguments)}")
    command = [*LOWTIDE, *arguments]
    done = subprocess.run(command, stdout=output, stderr=output, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: the batch is done, and some of its lines failed
        sys.stderr.write(done.stderr or "")
        sys.exit(done.returncode)
    return done


def show_results() -> None:
    """The first results beside what was asked, cut to the width of the terminal."""
    with INPUT.open(encoding="utf-8") as lines:
        asked = {line["custom_id"]: line["body"] for line in map(json.loads, lines)}
    with RESULTS.open(encoding="utf-8") as lines:
        results = [json.loads(line) for line in lines]
    width = max(40, min(shutil.get_terminal_size().columns, 100) - 10)
    say(f"\nThe first {min(SHOWN, len(results))} of {len(results)} results:")
    for result in results[:SHOWN]:
        body = result["response"]["body"]
        tokens = body["usage"]["completion_tokens"]
        say(f"\n  {result['custom_id']}  ({tokens} tokens)")
        say(f"    asked   {one_line(asked[result['custom_id']]['messages'][-1]['content'], width)}")
        say(f"    answer  {one_line(body['choices'][0]['message']['content'], width)}")
    say("\nThe demo model has random weights: its answers are noise. Everything else here is real.")


def one_line(text: str, width: int) -> str:
    """`text` without control characters, cut to `width`."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return textwrap.shorten(printable, width - 8, placeholder=" ...")


def say_goodbye() -> None:
    say(
        f"""
Files    {RESULTS}   one line per request, in input order
         {SERVER_LOG}      what the server said
Next     .venv/bin/lowtide serve --model demo        a server that stays, on port 8000
         .venv/bin/lowtide run {INPUT} -o out.jsonl --model demo
                                                     all of the above in one command
         README.md                                   your own engines, and the SDKs you have"""
    )


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
