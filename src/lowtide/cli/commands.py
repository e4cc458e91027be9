"""The table of commands: what each is called, where it is, and how its help shows it in use.

`app` takes the commands from here. Invariant: a module is imported when one of its commands is
asked for; so a command starts without what only the others need. The help of all reads what each
is for in the modules' source, because to import them takes longer than anything else it does.
"""

import ast
import inspect
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

import typer

from lowtide.cli.options import examples
from lowtide.cli.terminal import console
from lowtide.version import VERSION


class CommandSpec(NamedTuple):
    """The place of a command: a function of its name in `module`; or a group, which
    has no examples.
    """

    module: str
    examples: tuple[str, ...] = ()


COMMANDS: Final[Mapping[str, CommandSpec]] = MappingProxyType(
    {
        "serve": CommandSpec(
            "server.serve",
            (
                "lowtide serve --model demo",
                "lowtide serve --config lowtide.toml --port 9000",
                "lowtide serve --port 0 --json",
            ),
        ),
        "init": CommandSpec("server.init", ("lowtide init", "lowtide init --config batch.toml")),
        "worker": CommandSpec("server.serve", ("lowtide worker --config lowtide.toml",)),
        "reload": CommandSpec(
            "server.reload", ("lowtide reload", "lowtide reload --config batch.toml")
        ),
        "run": CommandSpec(
            "run.command",
            (
                "lowtide run batch.jsonl -o results.jsonl --model demo",
                "lowtide run batch.jsonl -o results.jsonl --url http://127.0.0.1:9001/v1",
                "lowtide run batch.jsonl -o results.jsonl --server http://batch.example:8000",
                "lowtide run reviews.csv -o out.csv --prompt 'Rate: {{ text }}' --model demo",
            ),
        ),
        "validate": CommandSpec(
            "batches.validate",
            ("lowtide validate batch.jsonl", "lowtide validate batch.jsonl --json | jq ."),
        ),
        "usage": CommandSpec(
            "accounts.usage",
            (
                "lowtide usage",
                "lowtide usage --since 2026-11-01 --until 2026-12-01 --by project",
                "lowtide usage --since 90d --by day,model,project --csv > usage.csv",
            ),
        ),
        "engines": CommandSpec(
            "server.engines", ("lowtide engines", "lowtide engines --server http://batch:8000")
        ),
        "report": CommandSpec(
            "batches.report",
            ("lowtide report batch_abc123 -o report.html",),
        ),
        "limits": CommandSpec(
            "accounts.limits", ("lowtide limits", "lowtide limits --json | jq .data")
        ),
        "doctor": CommandSpec(
            "doctor.command",
            ("lowtide doctor", "lowtide doctor --config lowtide.toml", "lowtide doctor --repair"),
        ),
        "backup": CommandSpec(
            "maintenance.backup",
            (
                "lowtide backup /backup/lowtide/2026-11-21",
                "lowtide backup /backup/lowtide/$(date +%F) --config lowtide.toml",
            ),
        ),
        "restore": CommandSpec(
            "maintenance.restore",
            ("lowtide restore /backup/lowtide/2026-11-21 --data-dir ./lowtide-data",),
        ),
        "simulate-engine": CommandSpec(
            "maintenance.simulate_engine",
            (
                "lowtide simulate-engine --port 9001",
                "lowtide simulate-engine --profile 70b-tp4-h100 --scheduling-policy priority",
                "lowtide simulate-engine --face llamacpp --max-num-seqs 8 --time-scale 10",
                "lowtide simulate-engine --fault crash@30+5 --fault noise=0.03",
            ),
        ),
        "files": CommandSpec("batches.files"),
        "batches": CommandSpec("batches.batches"),
        "webhooks": CommandSpec("webhooks.webhooks"),
        "keys": CommandSpec("accounts.keys"),
        "projects": CommandSpec("accounts.projects"),
        "orgs": CommandSpec("accounts.orgs"),
    }
)


def command_line(word: str | None = None) -> typer.Typer:
    """Returns the command `word` alone, if there is one; none for the version; for `--help` the
    names of all and what they are for; otherwise all, as corrections and completions need."""
    line = typer.Typer(
        name="lowtide",
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="A Batch API for the models you already serve.\n\n"
        "Try it without a server:  [bold]lowtide run batch.jsonl -o results.jsonl --model demo[/]",
        epilog="Exit codes: 0 done, 1 some lines failed, 2 usage, 3 the batch failed.",
    )
    line.callback()(_options)
    asked = {name: place for name, place in COMMANDS.items() if name == word}
    if word != "--version":
        add = _add_name if word == "--help" else _add
        for name, place in (asked or COMMANDS).items():
            add(line, name, place)
    return line


def _add_name(line: typer.Typer, name: str, place: CommandSpec) -> None:
    """Adds a command that can be listed and not run."""
    about = _about(f"lowtide.cli.{place.module}", name.replace("-", "_"))
    if place.examples:
        line.command(name, help=_flowing(about))(lambda: None)
    else:
        line.add_typer(typer.Typer(help=about), name=name)


def _about(module: str, function: str) -> str:
    """Returns the docstring of a command's function, or the help of the group that the module is,
    without importing it."""
    package, _, name = module.rpartition(".")
    source = pkgutil.get_data(package, f"{name}.py")
    for node in ast.parse(source or b"").body:
        match node:
            case ast.FunctionDef(name=defined) if defined == function:
                return ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id="app")], value=ast.Call(keywords=keywords)):
                return next(str(ast.literal_eval(k.value)) for k in keywords if k.arg == "help")
            case _:
                pass
    return ""


def _add(line: typer.Typer, name: str, place: CommandSpec) -> None:
    module = import_module(f"lowtide.cli.{place.module}")
    if place.examples:
        command = getattr(module, name.replace("-", "_"))
        about = _flowing(inspect.getdoc(command) or "")
        line.command(name, help=about, epilog=examples(*place.examples))(command)
        return
    for each in module.app.registered_commands:
        each.help = each.help or _flowing(inspect.getdoc(each.callback) or "")
    line.add_typer(module.app, name=name)


def _flowing(docstring: str) -> str:
    """Returns it with one line for each paragraph: the terminal breaks the lines."""
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.write(f"lowtide {VERSION}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
