"""Names that were replaced stay away, a class name means one thing, no import goes in a circle."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from tree import CODE_FOLDERS, ROOT, SRC, modules, pages, shown

GONE = frozenset(
    [
        "Acquaintance",
        "AcquaintLoop",
        "Beat",
        "BeatReceipt",
        "BudgetLoop",
        "CareStore",
        "CaredBatch",
        "Completions",
        "Controlled",
        "Desk",
        "Drift",
        "EngineSignals",
        "FlexDoor",
        "GatheringWriter",
        "HELD_CALLS",
        "HandClock",
        "HandWorker",
        "HeldLoop",
        "Holdings",
        "House",
        "Intake",
        "LimitService",
        "LineCutter",
        "LiveDoor",
        "LocalDesk",
        "LostPlans",
        "LostResults",
        "Mended",
        "Mending",
        "ModelShare",
        "Mounts",
        "OwnCall",
        "OwnWork",
        "Outlook",
        "Prospects",
        "RatePool",
        "RemoteDesk",
        "ReplicaLooks",
        "ScalerLook",
        "ServerGone",
        "SignalDelta",
        "SignalReader",
        "SqlCare",
        "Stopper",
        "TakenBack",
        "TaskTrouble",
        "UNTAUGHT",
        "Wishes",
        "WorkBench",
        "beat_s",
        "begin_again",
        "commit_beat",
        "dispose_alone",
        "hush",
        "lost_track",
        "may_found",
        "open_desk",
        "open_intake",
        "open_verbs",
        "patient_bar",
        "patient_counter",
        "told_on_stop",
        "trouble_at_s",
        "while_present",
    ]
)
"""Each has a word of the field in its place: the architecture page has them."""
METAPHORS = re.compile(r"\b(doors?|desks?|strangers?|wish(es)?|acquaint\w*)\b", re.IGNORECASE)
"""Words that once stood for an API, a backend, callers and requests, in code and tests."""
VAGUE_WORDS = frozenset({"told", "look", "looks", "looked", "looking", "trouble", "troubles"})
"""Words that once stood for what is reported, logged, read, observed, checked, or has failed."""
WORDS_THAT_STAY = frozenset(
    [
        "look_up",
        "_look_up",
        "looked_at",  # a column
        "trouble",  # two fields that clients of the API read
        "trouble_since",
        "console_looks",
        "shared_looks",
    ]
)
SPELLING = re.compile("organi" + "s", re.IGNORECASE)
VAGUE_OR_GONE_FILES = frozenset(
    [
        "affinity",
        "bars",
        "care",
        "checkups",
        "completion",
        "desk",
        "drift",
        "edge",
        "exits",
        "guard",
        "held",
        "node",
        "lengths",
        "mending",
        "mounts",
        "opening",
        "own_work",
        "paces",
        "place",
        "presence",
        "prospects",
        "rate",
        "screen",
        "signals",
        "verbs",
    ]
)


def names_in(text: str) -> set[str]:
    """Identifiers of a Python text; what stands in strings and comments is no identifier."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def test_names_that_were_replaced_do_not_return() -> None:
    found = {shown(p): sorted(GONE & names_in(p.read_text())) for p in modules()}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_replaced_name_is_recognised_in_code_and_only_there() -> None:
    assert names_in("def f(beat_s): 'Desk'  # House\n") & GONE == {"beat_s"}


def test_names_have_the_word_of_the_field_and_no_vague_one() -> None:
    """Outside the console, which has looks of its own at what it shows."""
    found = {
        shown(path): sorted(
            name
            for name in names_in(path.read_text()) - WORDS_THAT_STAY
            if VAGUE_WORDS & set(name.lower().split("_")) and not name.startswith("CONSOLE_")
        )
        for path in modules("src", "testkit", "bench", "tools")
        if not {"console", "plots"} & set(path.parts) and not path.stem.startswith("console")
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_modules_have_no_name_that_was_replaced() -> None:
    found = [shown(p) for p in SRC.rglob("*.py") if p.stem in VAGUE_OR_GONE_FILES]
    assert found == []


def test_the_code_has_no_words_of_its_own_for_what_has_a_name() -> None:
    found = [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in modules()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if METAPHORS.search(line) and "operator wishes" not in line
    ]
    assert found == []


def test_organization_has_one_spelling() -> None:
    texts = [*modules(), *pages(), ROOT / "lowtide.example.toml"]
    assert [shown(p) for p in texts if SPELLING.search(p.read_text())] == []


def classes_of(path: Path) -> list[str]:
    """Public classes at the top of a module."""
    body = ast.parse(path.read_text()).body
    return [n.name for n in body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules("src", "testkit"):
        for name in classes_of(path):
            places[name].append(shown(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


# ---- circles ------------------------------------------------------------------------------------


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(text: str, known: Iterable[str]) -> set[str]:
    """Modules of `known` that a text imports, wherever: at the top, in a function, for types."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of imports; empty when there is none."""
    done: set[str] = set()
    way: list[str] = []

    def visit(module: str) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        way.append(module)
        for other in sorted(graph.get(module, ())):
            if found := visit(other):
                return found
        way.pop()
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module))), [])


def test_no_module_imports_itself_through_others() -> None:
    paths = {dotted(p): p for p in modules("src", "testkit")}
    graph = {name: imports_of(p.read_text(), paths) - {name} for name, p in paths.items()}
    assert len(graph) > 300
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c"]),
    ],
)
def test_a_circle_of_imports_is_found(graph: dict[str, set[str]], found: list[str]) -> None:
    assert circle(graph) == found


def test_an_import_for_types_or_in_a_function_counts() -> None:
    text = "if TYPE_CHECKING:\n    from m.a import X\ndef f():\n    from m import b\n"
    assert imports_of(text, {"m", "m.a", "m.b", "m.c"}) == {"m.a", "m.b"}


def test_every_folder_of_code_is_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in modules()} == set(CODE_FOLDERS)


# ---- references ---------------------------------------------------------------------------------


def test_every_module_that_a_page_or_a_docstring_names_is_there() -> None:
    rings = "|".join(sorted(path.name for path in SRC.iterdir() if path.is_dir()))
    named = re.compile(rf"(?<![\w/.-])(?:{rings})(?:/\w+)+\.py\b")
    texts = [*modules("src", "testkit"), *pages()]
    missing = {
        shown(p): [m for m in named.findall(p.read_text()) if not (SRC / m).exists()] for p in texts
    }
    assert {path: names for path, names in missing.items() if names} == {}
