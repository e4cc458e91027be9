"""`lowtide engines`, on the database and by a server on it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from installation import SIDES, Installation, Prompt, running_installation
from prompt import Run

from testkit.patience import PATIENCE_S


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_installation(tmp_path_factory.mktemp("home")) as one:
        yield one


def reported(ask: Prompt) -> list[Any]:
    """The engines, once the server has written down what it has."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := ask.json("engines")["data"]) and time.monotonic() < give_up_at:
        time.sleep(0.1)
    return list(found)


@pytest.mark.parametrize("side", SIDES)
def test_engines_are_shown_with_how_full_they_are(
    side: str, installation: Installation, run_main: Run
) -> None:
    ask = Prompt(run_main, installation.at(side))
    (engine,) = reported(ask)
    assert (engine["condition"], engine["models"]) == ("ready", ["m"])
    assert engine["load"]["in_flight"] == 0
    assert engine["load"]["window"] > 0
    shown = ask("engines").out
    assert engine["name"] in shown
    assert "ready" in shown
    assert ("1 of 1 take batch calls" in ask("engines").err) == (side == "server")
