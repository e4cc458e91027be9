"""`lowtide`: the commands, and the edge where every failure becomes a sentence and an exit code.

`main` is the entry point. It is the third place that catches everything, beside the loop runner and
the ASGI edge: a person at a prompt must never meet a traceback.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from lowtide import __version__
from lowtide.cli import batches, exits, files, keys, orgs, projects, screen
from lowtide.cli.backup import backup
from lowtide.cli.doctor import doctor
from lowtide.cli.options import examples
from lowtide.cli.restore import restore
from lowtide.cli.run import run
from lowtide.cli.serve import serve, worker
from lowtide.cli.simulate_engine import simulate_engine
from lowtide.cli.usage import usage
from lowtide.cli.validate import validate

app = typer.Typer(
    name="lowtide",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="A Batch API for the models you already serve.\n\n"
    "Try it without a server:  [bold]lowtide run batch.jsonl -o results.jsonl --model demo[/]",
    epilog="Exit codes: 0 done, 1 some lines failed, 2 usage, 3 the batch failed.",
)
app.command(
    epilog=examples(
        "lowtide serve --model demo",
        "lowtide serve --config lowtide.toml --port 9000",
        "lowtide serve --port 0 --json",
    )
)(serve)
app.command(epilog=examples("lowtide worker --config lowtide.toml"))(worker)
app.command(
    epilog=examples(
        "lowtide run batch.jsonl -o results.jsonl --model demo",
        "lowtide run batch.jsonl -o results.jsonl --url http://127.0.0.1:9001/v1",
        "lowtide run batch.jsonl -o results.jsonl --server http://batch.example:8000",
    )
)(run)
app.add_typer(files.app, name="files")
app.add_typer(batches.app, name="batches")
app.command(
    epilog=examples("lowtide validate batch.jsonl", "lowtide validate batch.jsonl --json | jq .")
)(validate)
app.add_typer(keys.app, name="keys")
app.add_typer(projects.app, name="projects")
app.add_typer(orgs.app, name="orgs")
app.command(
    epilog=examples(
        "lowtide usage",
        "lowtide usage --since 2026-11-01 --until 2026-12-01 --by project",
        "lowtide usage --since 90d --by day,model,project --csv > usage.csv",
    )
)(usage)
app.command(
    epilog=examples(
        "lowtide doctor",
        "lowtide doctor --config lowtide.toml",
        "lowtide doctor --repair",
    )
)(doctor)
app.command(
    epilog=examples(
        "lowtide backup /backup/lowtide/2026-11-21",
        "lowtide backup /backup/lowtide/$(date +%F) --config lowtide.toml",
    )
)(backup)
app.command(
    epilog=examples("lowtide restore /backup/lowtide/2026-11-21 --data-dir ./lowtide-data")
)(restore)
app.command(
    epilog=examples(
        "lowtide simulate-engine --port 9001",
        "lowtide simulate-engine --profile 70b-tp4-h100 --scheduling-policy priority",
        "lowtide simulate-engine --face llamacpp --max-num-seqs 8 --time-scale 10",
        "lowtide simulate-engine --fault crash@30+5 --fault noise=0.03",
    )
)(simulate_engine)


def _print_version(wanted: bool) -> None:
    if wanted:
        screen.say(f"lowtide {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. `arguments` None: those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    if "_LOWTIDE_COMPLETE" in os.environ:  # the shell asks for completions, and typer answers
        command.main(given, prog_name="lowtide")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with command.make_context("lowtide", given) as context:
            command.invoke(context)
        sys.stdout.flush()
        return exits.DONE
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except exits.Terminated:
        return exits.TERMINATED
    except BrokenPipeError:
        screen.hush()
        return exits.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - see the module's docstring
        return _report(error, as_json="--json" in given)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise exits.Terminated


def _report(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong, on standard error, and as JSON on standard output where that is due."""
    if exits.debugging():
        traceback.print_exception(error)
    failure = _usage_error(error) or exits.explain(error)
    if not failure.message:  # `lowtide` alone: its help was printed already
        return failure.exit_code
    screen.note(f"[bold red]Error:[/] {escape(failure.message)}")
    if failure.hint:
        screen.note(f"[dim]{escape(failure.hint)}[/]")
    if as_json:
        sys.stdout.write(exits.as_json(failure) + "\n")
        sys.stdout.flush()
    return failure.exit_code


def _usage_error(error: Exception) -> exits.CommandError | None:
    """What the parser of options complains about, with the help that would answer it."""
    if not isinstance(error, typer.TyperException):
        return None
    format_message = getattr(error, "format_message", None)
    message = str(format_message() if format_message is not None else error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lowtide"
    return exits.CommandError(message, f"`{path} --help` shows how it is used.")
