"""The parts of docs/ that are made from the code, so that they cannot say anything else.

`make docs` writes them; tests/repo/test_generated_docs.py compares. Each page or block is a
function here that returns its Markdown. Not part of the package: nothing in src/ imports it.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from architecture_tables import layers_block, rooms_block
from markdown_table import table
from operator_tables import BLOCKS_OF_OPERATORS, OPERATORS
from outcome_tables import outcomes_page
from python_reference import python_page
from shared_things import SHARED, SHARED_ABOUT, SHARED_HEADING

ROOT: Final = Path(__file__).parents[1]
SRC: Final = ROOT / "src" / "lowtide"
EXAMPLE: Final = ROOT / "lowtide.example.toml"
MADE: Final = "<!-- Made by `make docs`. Change the code, not this page. -->"


# ---- settings -----------------------------------------------------------------------------------


def settings_page() -> str:
    """docs/reference/settings.md: keys and defaults from config, words from the example file."""
    from lowtide.config import Settings

    words = words_of_settings(EXAMPLE.read_text())
    parts = [
        "# Settings",
        MADE,
        "Defaults, then `lowtide.toml`, then the environment, then flags: the later one wins. The"
        " file is the one named with `--config`, else `./lowtide.toml`, else, for a server, a"
        " worker, `lowtide doctor` and the administrator's commands, `/etc/lowtide/lowtide.toml`."
        " Keys that are not known and values that make no sense stop the start; all of them are"
        " told at once, each with its line, variable or flag."
        f" [{EXAMPLE.name}](../../{EXAMPLE.name}) has all of them to copy from.",
    ]
    for section in msgspec.structs.fields(Settings):
        kind, is_list = _section_of(section.type)
        parts.append(f"## `[[{section.name}]]`" if is_list else f"## `[{section.name}]`")
        if doc := _own_doc(kind):
            parts.append(doc)
        if is_list:
            parts.append(
                f"One table each. In the environment: `LOWTIDE_{section.name.upper()}`, as JSON."
            )
        rows = []
        for field in msgspec.structs.fields(kind):
            name = f"LOWTIDE_{section.name}__{field.name}".upper()
            row = [f"`{field.name}`", _default(field), words.get((section.name, field.name), "")]
            rows.append(row if is_list else [*row, f"`{name}`"])
        headings = ["key", "default", "what it does"]
        parts.append(table(headings if is_list else [*headings, "environment"], rows))
    return "\n\n".join(parts) + "\n"


def words_of_settings(toml: str) -> Mapping[tuple[str, str], str]:
    """`(section, key)` -> the comment above it. A key that is commented out counts, too."""
    tomllib.loads(toml)
    found: dict[tuple[str, str], str] = {}
    section, comment = "", []
    for line in toml.splitlines():
        if header := re.fullmatch(r"\[+(\w+)\]+", line):
            section, comment = header[1], []
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            found[section, key[1]], comment = " ".join(comment), []
        elif line.startswith("# "):
            comment.append(line[2:])
        else:
            comment = []
    return found


def _section_of(kind: Any) -> tuple[type[msgspec.Struct], bool]:
    arguments = get_args(kind)
    return (arguments[0], True) if arguments else (kind, False)


def _own_doc(kind: type) -> str:
    return " ".join((vars(kind).get("__doc__") or "").split())


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or value in ((), {}):
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# ---- limits, modules, metrics -------------------------------------------------------------------


def limits_page() -> str:
    """docs/reference/limits.md: limits.py as a table."""
    from lowtide import limits

    about = (
        "Every bound of the system, with its reason. Those that an operator may change are keys in"
    )
    about += " [settings](settings.md), of which these are the defaults."
    parts = ["# Limits", MADE, about, SHARED_HEADING, SHARED_ABOUT]
    parts.append(table(("what is shared", "how it is divided", "who takes most meets"), SHARED))
    heading, rows = "", []
    for line in (SRC / "limits.py").read_text().splitlines():
        if title := re.fullmatch(r"# -+ (.+?) -+", line):
            parts += _bounds(heading, rows)
            heading, rows = title[1], []
        elif bound := re.match(r"([A-Z][A-Z_]+): Final = (.+?)(?:  # (.+))?$", line):
            value = getattr(limits, bound[1])
            values = value if isinstance(value, tuple) else (value,)
            shown = "; ".join(f"{each:,}" for each in values)
            rows.append([f"`{bound[1]}`", shown, bound[3] or ""])
    return "\n\n".join([*parts, *_bounds(heading, rows)]) + "\n"


def _bounds(heading: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A section of limits.py; its units, which come before the first heading, are left out."""
    if not heading:
        return []
    return [f"## {heading[0].upper()}{heading[1:]}", table(("name", "value", "why"), rows)]


def modules_page() -> str:
    """docs/reference/modules.md: every module with the first sentence of its docstring."""
    parts = [
        "# Modules",
        MADE,
        "What each module says it is for, in the words of its own docstring.",
    ]
    folders = sorted({path.parent for path in SRC.rglob("*.py")})
    for folder in folders:
        rows = [
            [f"[`{path.name}`](../../{path.relative_to(ROOT)})", first_sentence(path)]
            for path in sorted(folder.glob("*.py"))
            if path.name != "__init__.py"
        ]
        if rows:
            doc = first_sentence(folder / "__init__.py")
            parts += [f"## `{folder.relative_to(SRC.parent)}/`", doc, table(("module", ""), rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def first_sentence(path: Path) -> str:
    """Of a module's docstring. Empty for a folder that is no package."""
    if not path.exists():
        return ""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s+(?=[A-Z])", paragraph)[0].rstrip(":")


def metrics_page() -> str:
    """docs/reference/metrics.md: what /metrics offers of our own."""
    from prometheus_client import REGISTRY
    from prometheus_client.metrics import MetricWrapperBase

    import lowtide.api.app
    import lowtide.wiring  # noqa: F401 - both, so that every metric is registered

    ours = {
        name: collector
        for collector, names in REGISTRY._collector_to_names.items()
        if isinstance(collector, MetricWrapperBase)
        for name in names[:1]
        if name.startswith("lowtide_")
    }
    rows = [
        [f"`{name}`", c._type, ", ".join(f"`{label}`" for label in c._labelnames), c._documentation]
        for name, c in sorted(ours.items())
    ]
    about = "`GET /metrics`, in the text format of Prometheus. Beside these there are the usual"
    about += " `process_` and `python_` metrics. A counter's samples end in `_total`."
    return (
        "\n\n".join(["# Metrics", MADE, about, table(("name", "kind", "labels", "what"), rows)])
        + "\n"
    )


# ---- the command line ---------------------------------------------------------------------------


def cli_page() -> str:
    """docs/reference/cli.md: every command with its arguments and options."""
    import typer

    from lowtide.cli.commands import command_line

    parts = ["# The command line", MADE, "`lowtide COMMAND --help` says the same at the prompt."]
    for path, command in commands("lowtide", typer.main.get_command(command_line())):
        parts.append(f"## `{path}`")
        parts.append(_paragraphs(command.help or ""))
        rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False)]
        if rows:
            parts.append(table(("", "default", "what it does"), rows))
    return "\n\n".join(parts) + "\n"


def commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The command and, in order, all below it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(f"{path} {name}", below)


def _paragraphs(text: str) -> str:
    text = re.sub(r"\[/?[a-z]*\]", "", text)  # rich markup
    return "\n\n".join(" ".join(p.split()) for p in text.split("\n\n"))


def _parameter(parameter: Any) -> list[str]:
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return [f"`{metavar}`", "required" if parameter.required else "-", parameter.help or ""]
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = (
        "required" if parameter.required else "-" if default in (None, False) else f"`{default}`"
    )
    help_text = " ".join((parameter.help or "").split())
    if parameter.envvar:
        help_text += f" (`{parameter.envvar}`)"
    return [f"{names} `{metavar}`" if metavar else names, shown, help_text]


# ---- the state diagram --------------------------------------------------------------------------


def states_block() -> str:
    """The diagram in docs/architecture.md, from the table in core/batches/batch.py."""
    from lowtide.core.batches.batch import TERMINAL, TRANSITIONS

    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> validating"]
    for state, row in TRANSITIONS.items():
        lines += [f"    {state} --> {to}: {event}" for event, to in row.items()]
    lines += [f"    {state} --> [*]" for state in TRANSITIONS if state in TERMINAL]
    return "\n".join([*lines, "```"]) + "\n"


# ---- fields that are kept from engines ----------------------------------------------------------


def reserved_block() -> str:
    """The table in docs/how-to/hardening.md, from the one in core/bodies/body_rules.py."""
    from lowtide.core.bodies.body_rules import RESERVED_FIELDS

    rows = [[f"`{name}`", why] for name, why in RESERVED_FIELDS.items()]
    return table(["field", "what it reaches"], rows) + "\n"


# ---- writing and comparing ----------------------------------------------------------------------

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reference/settings.md": settings_page,
    "docs/reference/limits.md": limits_page,
    "docs/reference/modules.md": modules_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/outcomes.md": lambda: outcomes_page(MADE),
    "docs/reference/python.md": lambda: python_page(MADE),
}
BLOCKS: Final[Mapping[tuple[str, str], Callable[[], str]]] = {
    ("docs/architecture.md", "layers"): layers_block,
    ("docs/architecture.md", "rooms"): rooms_block,
    ("docs/architecture.md", "states"): states_block,
    ("docs/how-to/hardening.md", "reserved"): reserved_block,
    **{(OPERATORS, block): make for block, make in BLOCKS_OF_OPERATORS.items()},
}


def as_it_should_be(name: str) -> str:
    """The text of a page with its generated parts fresh."""
    if name in PAGES:
        return PAGES[name]()
    text = (ROOT / name).read_text()
    for (page, block), make in BLOCKS.items():
        if page == name:
            begin, end = f"<!-- made: {block} -->\n", f"<!-- end: {block} -->"
            before, found, rest = text.partition(begin)
            _, closed, after = rest.partition(end)
            if not (found and closed):
                raise ValueError(f"{name} has no block {block}")
            text = before + begin + make() + end + after
    return text


def names() -> list[str]:
    return [*PAGES, *dict.fromkeys(page for page, _ in BLOCKS)]


def main(arguments: Sequence[str]) -> int:
    """With --write, bring the docs up to date; without, say which are not."""
    stale = [
        n
        for n in names()
        if not (ROOT / n).exists() or (ROOT / n).read_text() != as_it_should_be(n)
    ]
    for name in stale:
        print(("wrote " if "--write" in arguments else "out of date: ") + name)
        if "--write" in arguments:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(as_it_should_be(name))
    return 0 if "--write" in arguments else min(1, len(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
