"""What `lowtide engines` says of the places where engines are found."""

import pytest

from lowtide.api.objects.engines import SourceObject
from lowtide.cli.server.engines import source_line


def reported(source: str = "file /e.yaml", *engines: str, workers: int = 1, **more: str) -> str:
    seen = SourceObject(
        source=source, engines=engines, workers=("w1",), trouble=more.get("trouble"),
        stale_since=1_795_946_961 if "stale" in more else None,
    )  # fmt: skip
    return source_line(seen, workers)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (reported("file /e.yaml", "a"), "Source file /e.yaml: 1 engine."),
        (reported("file /e.yaml", "a", "b"), "Source file /e.yaml: 2 engines."),
        (reported(trouble="has not answered yet"), "0 engines: has not answered yet."),
        (reported("file /e.yaml", "a", workers=2), "1 engine (seen by w1)."),
        (
            reported("settings", stale="", trouble="line 2"),
            "settings file is not taken over: line 2.",
        ),
    ],
)
def test_a_source_is_one_line(line: str, words: str) -> None:
    assert line.endswith(words)


def test_a_source_that_does_not_answer_says_since_when_and_why() -> None:
    line = reported("file /e.yaml", "a", stale="", trouble="cannot be read")
    assert line.startswith("Source file /e.yaml: 1 engine, no answer since ")
    assert line.endswith(": cannot be read.")
