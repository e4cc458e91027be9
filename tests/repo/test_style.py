"""The written rules of style, as far as a machine can hold the code to them."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import ROOT, SRC, modules, shown

CODE = ("src", "testkit")
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LINE_CHARS_MAX = 100
# A sleep of random length is chaos on purpose: it waits for nothing.
SLEEP = re.compile(r"(time|asyncio)\.sleep\((?!0[,)]|random\.).*\)")
PRAGMA = re.compile(r"  # (noqa|type): .*")
MIGRATIONS = SRC / "store" / "schema" / "migrations" / "versions"  # records, and long
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
CATCHES_EVERYTHING = {
    "src/lowtide/loops/runner.py",
    "src/lowtide/api/middleware/request_id.py",
    "src/lowtide/cli/app.py",  # a person at a prompt never meets a traceback
}
# A docstring that begins so is a part of a sentence: its subject is left to the reader.
FRAGMENT = re.compile(
    r"(After|Against|Among|And|As|At|Before|Behind|Beside|Between|But|By|For|From|In|Into|Of|On|Or"
    r"|Over|Since|So|Through|To|Under|Until|With|Within|Without)\b"
)
# An order to the reader. Help texts and summaries of routes are orders: there the reader does it.
IMPERATIVE = re.compile(
    r"(Abort|Add|Append|Begin|Bring|Call|Change|Check|Close|Commit|Complete|Copy|Count|Create"
    r"|Decide|Delete|Deliver|Drop|End|Fetch|Find|Forget|Give|Hide|Hold|Insert|Keep|Lease|Let|Lift"
    r"|Make|Mark|Move|Put|Raise|Read|Record|Refuse|Release|Remove|Replace|Run|Save|Send|Serve|Set"
    r"|Settle|Start|Stop|Store|Take|Tell|Try|Turn|Wait|Write|Yield)\b"
)
ORDERS = ("api", "cli", "client")
ACTORS = re.compile(r"\b(we|ours|nobody|somebody)\b", re.IGNORECASE)
# What is quoted or code is not the docstring's own word: the system's user `nobody`.
QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def functions(path: Path) -> Iterator[Function]:
    return (
        n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def lines_of(function: Function) -> int:
    """From the first line of its body: the signature of a command is a table of its options."""
    return (function.end_lineno or function.lineno) - function.body[0].lineno + 1


def handlers_of_everything(path: Path) -> Iterator[int]:
    """Lines of `except:`, `except Exception` and tuples that hold it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.walk(node.type) if node.type is not None else ()
            names = {n.id for n in caught if isinstance(n, ast.Name)}
            if node.type is None or "Exception" in names:
                yield node.lineno


def test_the_tree_was_found() -> None:
    assert len(modules(*CODE)) > 50


def test_no_module_is_longer_than_a_reader_s_patience() -> None:
    counted = {shown(path): len(path.read_text().splitlines()) for path in modules(*CODE)}
    del counted["src/lowtide/limits.py"]  # a table, which is looked up and not read through
    assert {name: n for name, n in counted.items() if n > MODULE_LINES_MAX} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = [
        f"{shown(path)}:{function.lineno} {function.name}: {lines_of(function)} lines"
        for path in modules(*CODE)
        if MIGRATIONS not in path.parents
        for function in functions(path)
        if lines_of(function) > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_no_line_is_wider_than_a_hundred_characters() -> None:
    too_wide = [
        f"{shown(path)}:{number}"
        for path in modules()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(PRAGMA.sub("", line)) > LINE_CHARS_MAX and "noqa: E501" not in line
    ]
    assert too_wide == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        shown(p) for p in modules() if not (ast.get_docstring(parsed(p)) or p.stat().st_size == 0)
    ]
    assert silent == []


def docstrings(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, of modules, classes, functions and attributes alike."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Expr(ast.Constant(str(text))):
                yield node.lineno, inspect.cleandoc(text)


def obscurity(docstring: str) -> str | None:
    """The word that leaves open what or who is meant; None where there is none."""
    found = FRAGMENT.match(docstring) or ACTORS.search(QUOTED.sub("", docstring))
    return found[0] if found else None


def test_docstrings_say_what_they_are_about_and_who_acts() -> None:
    """Each begins with a verb or with a noun that names the thing, and names the part that acts."""
    found = [
        f"{shown(path)}:{line}: {word}"
        for path in modules(*CODE)
        for line, text in docstrings(path.read_text())
        if (word := obscurity(text)) is not None
    ]
    assert found == []


def test_docstrings_of_functions_say_what_they_do_in_the_third_person() -> None:
    found = [
        f"{shown(path)}:{function.lineno}: {text.partition(' ')[0]}"
        for path in modules("src")
        if not path.is_relative_to(SRC) or path.relative_to(SRC).parts[0] not in ORDERS
        for function in functions(path)
        if IMPERATIVE.match(text := ast.get_docstring(function) or "")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("docstring", "word"),
    [
        ("Of one organization; None: no bound.", "Of"),
        ("As `serve_body`, without an HTTP API.", "As"),
        ("So many more bytes are kept.", "So"),
        ("Waits until nobody else writes.", "nobody"),
        ("The known fields.\n\nWe pass over the others.", "We"),
        ("The bound of one organization; None: no bound.", None),
        ('Drops its rights: runs as `nobody`, or as "somebody".', None),
        ("Also settles who answers.", None),
    ],
)
def test_an_obscure_docstring_is_recognised(docstring: str, word: str | None) -> None:
    assert obscurity(docstring) == word


def test_a_docstring_of_anything_is_found() -> None:
    text = '"""A"""\nx = 1\n"""B"""\nclass C:\n    """D"""\n    def f(self):\n        """E"""\n'
    assert [text for _, text in docstrings(text)] == ["A", "B", "D", "E"]


def test_names_of_modules_say_something() -> None:
    vague = [shown(p) for p in SRC.rglob("*") if p.stem in VAGUE_NAMES]
    assert vague == []


def test_nothing_in_the_package_is_left_unfinished() -> None:
    marks = [
        f"{shown(path)}:{number} {mark}"
        for path in modules(*CODE)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for mark in UNFINISHED
        if mark in line
    ]
    assert marks == []


def test_everything_is_caught_in_the_named_places_only() -> None:
    places = {shown(path) for path in modules(*CODE) if any(handlers_of_everything(path))}
    assert places == CATCHES_EVERYTHING


def test_each_of_those_places_catches_everything_once() -> None:
    for path in modules(*CODE):
        if shown(path) in CATCHES_EVERYTHING:
            assert len(list(handlers_of_everything(path))) == 1, shown(path)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass\n", [3]),
        ("try:\n    f()\nexcept:\n    pass\n", [3]),
        ("try:\n    f()\nexcept (OSError, Exception) as e:\n    pass\n", [3]),
        ("try:\n    f()\nexcept OSError:\n    pass\n", []),
    ],
)
def test_a_catcher_of_everything_is_recognised(tmp_path: Path, code: str, found: list[int]) -> None:
    path = tmp_path / "m.py"
    path.write_text(code)
    assert list(handlers_of_everything(path)) == found


def test_names_of_tests_are_sentences() -> None:
    """A subject and a verb at least: what is claimed, not what is called."""
    short = [
        f"{shown(path)}:{function.lineno} {function.name}"
        for path in modules("tests")
        if path.name.startswith("test_")
        for function in functions(path)
        if function.name.startswith("test_") and function.name.count("_") < 2
    ]
    assert short == []


def sleeps_outside_of_loops(node: ast.AST) -> Iterator[int]:
    """Lines of sleeps that do not look again afterwards; `sleep(0)` only lets others run."""
    if isinstance(node, ast.While):
        return
    if isinstance(node, ast.Call) and SLEEP.fullmatch(ast.unparse(node)):
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from sleeps_outside_of_loops(child)


def test_no_test_sleeps_and_hopes() -> None:
    """Waits are for events. Where there is none (another process), a loop looks again, bounded."""
    asleep = [
        f"{shown(path)}:{line}"
        for path in modules("tests")
        if path.name.startswith("test_")
        for line in sleeps_outside_of_loops(parsed(path))
    ]
    assert asleep == []


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by name alone, and refuses the second."""
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert sorted(set(names)) == sorted(names)


def _names_a_replica(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name == "replica"


def written_from_outside(path: Path) -> Iterator[int]:
    """Lines that assign to an attribute of something called `replica`."""
    for node in ast.walk(parsed(path)):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in (part for each in targets for part in ast.walk(each)):
            is_write = isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
            if is_write and _names_a_replica(target.value):
                yield target.lineno


def test_only_a_replica_writes_its_own_fields() -> None:
    found = {shown(path): list(written_from_outside(path)) for path in modules("src")}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("code", ["replica.window = 1", "a.replica.b += 1", "x, replica.y = 1, 2"])
def test_a_write_from_outside_is_recognised(tmp_path: Path, code: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    assert list(written_from_outside(path)) == [1]
