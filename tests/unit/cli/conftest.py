"""The edge and a stand-in for a server, for the command line's own tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt import Make, Outcome, Reply, Run, Scripted

from lowtide.cli.app import main


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test in its own folder, without settings of the person who runs it."""
    monkeypatch.chdir(tmp_path)
    for name in ("LOWTIDE_SERVER", "LOWTIDE_API_KEY", "LOWTIDE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def scripted() -> Iterator[Make]:
    made: list[Scripted] = []

    def make(*replies: Reply) -> Scripted:
        made.append(Scripted(replies))
        return made[-1]

    yield make
    for one in made:
        one.client.__exit__()
