"""Folders in docs/architecture.md: which ring imports which, which rooms are where.

Read by generated_docs.py. A ring is a folder of src/lowtide, a room a folder in it.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from markdown_table import table

SRC: Final = Path(__file__).parents[1] / "src" / "lowtide"
RINGS: Final = (
    "core", "service", "loops", "store", "blobs", "engines", "api", "cli", "wiring", "engine_sim",
)  # fmt: skip
"""Those that have rooms, from the inside out."""


def layers_block() -> str:
    """Which ring imports which, without the arrows that follow from others."""
    arrows = _imports_of_rings()
    lines = ["```mermaid", "flowchart LR"]
    for ring in sorted(arrows):
        beyond = {far for near in arrows[ring] for far in _reachable(arrows, near)}
        lines += [f"    {ring} --> {other}" for other in sorted(arrows[ring] - beyond)]
    return "\n".join([*lines, "```"]) + "\n"


def rooms_block() -> str:
    """A table of concepts: the folder that each has in each ring."""
    rooms = defaultdict(list)
    for ring in RINGS:
        for init in sorted((SRC / ring).glob("*/__init__.py")):
            rooms[init.parent.name].append(ring)
    rows = []
    for room in sorted(rooms, key=lambda name: (-len(rooms[name]), name)):
        folders = [f"[`{r}/{room}/`](../src/lowtide/{r}/{room})" for r in rooms[room]]
        rows.append([room, _about(SRC / rooms[room][0] / room), ", ".join(folders)])
    return table(["room", "what it is", "where"], rows) + "\n"


def _about(folder: Path) -> str:
    """The first sentence of a folder's docstring."""
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def _imports_of_rings() -> Mapping[str, set[str]]:
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in SRC.rglob("*.py"):
        ring = path.relative_to(SRC).parts[0].removesuffix(".py")
        if not ring.startswith("__"):
            arrows[ring] |= set(_rings_named(path)) - {ring}
    return arrows


def _rings_named(path: Path) -> Iterable[str]:
    """Rings that a module imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lowtide"):
            parts = str(node.module).split(".")
            yield from parts[1:2] or [
                name.name for name in node.names if not name.name.startswith("__")
            ]


def _reachable(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = arrows.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found
