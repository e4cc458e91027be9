"""Settings and alert rules on pages: settings that a server takes, metrics that are there.

What nginx and Prometheus themselves say of their files is for tools/check_deploy.py.
"""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from page_blocks import blocks_of, blocks_that
from page_session import ROOT

from lowtide import config

HOW_TO: Final = ROOT / "docs" / "how-to"
METRICS: Final = ROOT / "docs" / "reference" / "metrics.md"
HEREDOC: Final = re.compile(r"tee \S+\.toml <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
SUFFIXES: Final = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}


def settings_on(page: Path) -> list[str]:
    blocks = blocks_of(page.read_text())
    shown = [block.text for block in blocks if block.language == "toml"]
    return shown + [text for block in blocks for text in HEREDOC.findall(block.text)]


PAGES: Final = [*filter(settings_on, [ROOT / "README.md", *sorted(HOW_TO.glob("*.md"))])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_on_a_page_are_settings(page: Path, tmp_path: Path) -> None:
    for text in settings_on(page):
        file = tmp_path / "lowtide.toml"
        file.write_text(text.replace("at least 32 characters, the same everywhere", "0f1e2d3c" * 4))
        config.load(file, {})


def known_samples() -> dict[str, set[str]]:
    """Each name that /metrics has, and its labels, from the page that is made of the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", METRICS.read_text(), re.M)
    return {
        name + suffix: set(re.findall(r"`(\w+)`", labels))
        for name, kind, labels in rows
        for suffix in SUFFIXES[kind]
    }


def alert_rules() -> list[dict[str, Any]]:
    (block,) = blocks_that(HOW_TO / "monitoring.md", "alert:")
    return [rule for group in yaml.safe_load(block.text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_are_there(rule: dict[str, Any]) -> None:
    known = known_samples()
    asked = re.findall(r"\b(lowtide_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert asked
    for name, selector in asked:
        assert name in known
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= known[name]
    labels = set().union(*(known[name] for name, _ in asked))
    sums = re.findall(r"by \(([^)]*)\)", rule["expr"])
    assert {label for found in sums for label in found.split(", ")} <= labels | {"le"}
