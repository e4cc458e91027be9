"""How `lowtide engines` tells of a scaler."""

from typing import Any

import pytest

from lowtide.api.objects.scale import ScalerObject
from lowtide.cli.server.engines import scaler_line

AT = 1796007600


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        ({}, "Scaler s: not read yet."),
        ({"target": 2, "running": 1}, "Scaler s: 1 of 2 running."),
        (
            {
                "target": 0,
                "running": 0,
                "asked": 2,
                "asked_at": AT,
                "reason": "due",
                "dry_run": True,
            },
            "Scaler s (dry run): 0 of 0 running, would have been asked for 2 at",
        ),
        ({"trouble": "it answers 403"}, "Scaler s: not read yet. it answers 403."),
    ],
)
def test_a_scaler_is_one_line(reported: dict[str, Any], words: str) -> None:
    assert scaler_line(ScalerObject(scaler="s", **reported)).startswith(words)


def test_a_failure_says_since_when() -> None:
    line = scaler_line(ScalerObject(scaler="s", trouble="away", trouble_since=AT))
    assert "away, since " in line
