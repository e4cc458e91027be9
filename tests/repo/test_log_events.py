"""docs/reference/log-events.md names events that the code writes, and all of some families."""

import ast
import re
from typing import get_args, get_type_hints

from tree import ROOT, SRC

from lowtide.core.reporting.overview import WaitingEvent
from lowtide.core.reporting.replica_watch import EventName

PAGE = ROOT / "docs" / "reference" / "log-events.md"
FAMILIES = ("batch.", "circuit.", "line.", "loop.", "storage.")
"""All events that begin so are on the page."""


def written() -> set[str]:
    """Names of events in calls of a logger, and those that the core decides on."""
    found = {*get_args(EventName), *get_args(get_type_hints(WaitingEvent)["event"])}
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if _is_log_call(node):
                constants = [n for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
                found |= {str(constant.value) for constant in constants}
    return found


def _is_log_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and bool(node.args)
    )


def documented() -> set[str]:
    return set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", PAGE.read_text(), re.MULTILINE))


def test_every_event_on_the_page_is_one_that_the_code_writes() -> None:
    assert documented() - written() == set()


def test_the_page_names_all_events_about_work_and_storage() -> None:
    ours = {name for name in written() if name.startswith(FAMILIES)}
    assert len(ours) >= 10
    assert ours - documented() == set()
