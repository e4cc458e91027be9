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
from typing import Any

HERE = Path(__file__).parent.resolve()
INPUT = Path(os.path.relpath(HERE / "batch.jsonl"))
OUT = Path("demo-out")
RESULTS, ERRORS = OUT / "results.jsonl", OUT / "results.errors.jsonl"
SERVER_LOG = OUT / "server.log"
LOWTIDE = [sys.executable, "-m", "lowtide"]
STOP_S = 20


def main() -> int:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the server is stopped then, too
    OUT.mkdir(exist_ok=True)
    say("Starting Lowtide with its demo model, SmolLM2-135M-Instruct (Apache-2.0) ...")
    with running_server() as address:
        say(f"Lowtide listens on {address}. Now the steps of somebody who has a batch:")
        os.environ["LOWTIDE_SERVER"] = address
        file_id = ask("files", "upload", str(INPUT))
        batch_id = ask("batches", "create", file_id)
        show("batches", "watch", batch_id)
        code = show("batches", "results", batch_id, "-o", str(RESULTS))
        if RESULTS.is_file() and code in (0, 1):
            show_answers()
            show_errors()
        say("Stopping the server ...")
    say_goodbye()
    return 0 if code == 1 else code  # 1: some lines failed, and one is meant to


@contextmanager
def running_server() -> Iterator[str]:
    """The address of a server of our own: any free port, its data under `OUT`."""
    command = [*LOWTIDE, "serve", "--json", "--model", "demo", "--port", "0"]
    command += ["--data-dir", str(OUT / "data")]
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


def show_answers() -> None:
    """Each answer beside what was asked, as wide as the terminal."""
    asked = {line["custom_id"]: line["body"] for line in lines_of(INPUT)}
    results = lines_of(RESULTS)
    say(f"\n{RESULTS}: {len(results)} answers, in the order of {INPUT}")
    for result in results:
        question = asked[result["custom_id"]]["messages"][-1]["content"]
        answer = result["response"]["body"]["choices"][0]["message"]["content"]
        say(f"\n  {result['custom_id']}")
        say(block("asked", question))
        say(block("answer", answer))


def show_errors() -> None:
    """The lines that failed, each with its reason; the example has one, which fails on purpose."""
    errors = lines_of(ERRORS) if ERRORS.is_file() else []
    say(f"\n{ERRORS}: {len(errors)} failed (the example has a mistake in it, to show this file)")
    for line in errors:
        say(f"\n  {line['custom_id']}")
        say(block("error", line["error"]["message"]))
    say(
        "\nThe demo model is real and tiny (135 million parameters). It sorts short texts, picks"
        "\nout fields and shortens a message. It gets many facts and most sums wrong, and longer"
        "\ntexts wander. An engine of your own answers better; all else works as just seen."
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def block(name: str, text: str) -> str:
    """`text` without line breaks and control characters, under a hanging `name`."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    return textwrap.fill(
        " ".join(printable.split()),
        width,
        initial_indent=f"    {name:<8}",
        subsequent_indent=" " * 12,
    )


def say_goodbye() -> None:
    say(
        f"""
Files    {RESULTS}          the answers, one line per request
         {ERRORS}   the requests that failed, with their reasons
         {SERVER_LOG}             what the server said
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
