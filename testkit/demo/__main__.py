"""`python -m testkit.demo`: engines, a past, traffic, and one address to open.

Each run begins anew in its folder. Ctrl-C ends all that was started.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

from lowtide.data_dir import DATABASE_FILE
from testkit.demo.client import DemoClient
from testkit.demo.installation import PORT, DemoEngine, serve, simulated, write_settings
from testkit.demo.past import Past, first_key, live_through
from testkit.demo.processes import DemoError, Processes
from testkit.demo.requests import LARGE, SMALL
from testkit.demo.review_engine import MODEL, running_review_engine
from testkit.demo.traffic import keep_going, present
from testkit.demo.weeks import learn_weeks

FOLDER: Final = Path("demo-out/console")
MARK: Final = "made-by-the-demo"
"""A file in the folder: only a folder with it is removed."""


def main() -> int:
    """The exit code."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = _fresh(asked.folder.absolute())
    try:
        with running_review_engine() as reviewer, Processes(folder) as processes:
            _say("1/5", "starting three simulated engines")
            engines = [*_fleet(processes), DemoEngine("reader", reviewer.address, MODEL)]
            past = write_settings(folder, engines, mode="keys", port=0)
            _say("2/5", "making an installation with two days behind it")
            key = first_key(past, folder).strip()
            live_through(
                Past(processes, past, reviewer.address, lambda text: _say("   ", text)), key
            )
            learn_weeks(folder / "data" / DATABASE_FILE)
            _say("3/5", "starting the server of today")
            now = write_settings(folder, engines, mode="open", port=asked.port)
            _, address = serve(processes, now)
            with DemoClient(address) as client:
                _say("4/5", "sending batches")
                present(client)
                _say("5/5", "live calls begin; new batches follow")
                _tell(address, as_json=asked.json)
                asyncio.run(keep_going(client, processes))
        raise DemoError(f"a process of the demo has ended; what it said is in {folder}")
    except KeyboardInterrupt:
        print("\nAll that the demo had started has ended.", file=sys.stderr)
        return 0
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what it makes is here")
    parser.add_argument("--port", type=int, default=PORT, help="of the server; 0: any free one")
    parser.add_argument("--json", action="store_true", help="tell the address as a line of JSON")
    return parser.parse_args()


def _fresh(folder: Path) -> Path:
    if folder.exists():
        if not (folder / MARK).exists():
            raise SystemExit(f"demo: {folder} is there, and was not made by the demo: remove it.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def _fleet(processes: Processes) -> list[DemoEngine]:
    slow = ("--time-scale", "0.5", "--max-num-seqs", "16", "--stream-interval", "4")
    large = ("--profile", "70b-tp4-h100", *slow)
    return [
        simulated(processes, "rack-1", LARGE, *large),
        simulated(processes, "rack-2", LARGE, *large, "--fault", "hang@90+25", "--seed", "2"),
        simulated(processes, "rack-3", SMALL, "--profile", "8b-a100", *slow, "--seed", "3"),
        DemoEngine("rack-4", "http://127.0.0.1:9", SMALL),  # nothing listens there
    ]


def _say(step: str, text: str) -> None:
    print(f"{step} {text}", file=sys.stderr, flush=True)


def _say_more(text: str) -> None:
    _say("   ", text)


def _tell(address: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"address": address}), flush=True)
    else:
        print(f"\n    Open {address}    (Ctrl-C ends everything)", flush=True)
        print(f"    In another terminal: export LOWTIDE_SERVER={address}", flush=True)
        print(f"    or give each command: --server {address}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
