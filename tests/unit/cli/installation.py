"""One installation seen from both sides: its database, and a server that runs on it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prompt import Outcome, Run

from testkit.live_server import live_server

SIDES = ("database", "server")


class Installation:
    """`at` gives the options that lead a command to one of its sides."""

    def __init__(self, data_dir: Path, address: str) -> None:
        self.data_dir = data_dir
        self.address = address

    def at(self, side: str) -> tuple[str, str]:
        if side == "server":
            return ("--server", self.address)
        return ("--data-dir", str(self.data_dir))


class Prompt:
    """Commands that all go to one side of an installation."""

    def __init__(self, run_main: Run, options: tuple[str, ...]) -> None:
        self._run = run_main
        self._options = options

    def __call__(self, *arguments: str) -> Outcome:
        return self._run(*arguments, *self._options)

    def json(self, *arguments: str) -> Any:
        """The answer of a command that succeeds."""
        outcome = self(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)


@contextmanager
def running_installation(folder: Path) -> Iterator[Installation]:
    """With a real server in a process of its own on the data directory `folder/data`."""
    with live_server(folder, ["m"]) as server:
        yield Installation(folder / "data", server.address)
