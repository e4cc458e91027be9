"""`lowtide`: the edge where every failure becomes a sentence and an exit code.

`main` is the entry point. It is the third place that catches everything, beside the loop runner and
the ASGI edge: a person at a prompt must never meet a traceback.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import typer
from rich.markup import escape

from lowtide.cli.commands import command_line
from lowtide.cli.suggestions import suggestion
from lowtide.cli.terminal import command_errors, console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. `arguments` None: those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "_LOWTIDE_COMPLETE" in os.environ:  # the shell asks for completions, and typer answers
        typer.main.get_command(command_line()).main(given, prog_name="lowtide")
    command = typer.main.get_command(command_line(given[0] if given else "--help"))
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with command.make_context("lowtide", given) as context:
            command.invoke(context)
        sys.stdout.flush()
        return command_errors.DONE
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        return command_errors.INTERRUPTED
    except command_errors.Terminated:
        return command_errors.TERMINATED
    except BrokenPipeError:
        console.close_stdout()
        return command_errors.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - see the module's docstring
        return _report(error, as_json="--json" in given)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise command_errors.Terminated


def _report(error: Exception, *, as_json: bool) -> int:
    """Says what went wrong, on standard error, and as JSON on standard output where that is due."""
    if command_errors.debugging():
        traceback.print_exception(error)
    failure = _usage_error(error) or command_errors.explain(error)
    if not failure.message:  # `lowtide` alone: its help was printed already
        return failure.exit_code
    console.info(f"[bold red]Error:[/] {escape(failure.message)}")
    if failure.hint:
        console.info(f"[dim]{escape(failure.hint)}[/]")
    if as_json:
        sys.stdout.write(command_errors.as_json(failure) + "\n")
        sys.stdout.flush()
    return failure.exit_code


def _usage_error(error: Exception) -> command_errors.CommandError | None:
    """The failure for a complaint of the option parser, with the help that answers it."""
    if not isinstance(error, typer.TyperException):
        return None
    format_message = getattr(error, "format_message", None)
    message = str(format_message() if format_message is not None else error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lowtide"
    known = getattr(context.command, "commands", {}) if context is not None else {}
    if message.startswith("No such command") and (meant := suggestion(message, known)):
        complaint = message.partition(" Did you mean ")[0]  # the hint has the whole command
        return command_errors.CommandError(complaint, f"Did you mean `{path} {meant}`?")
    return command_errors.CommandError(message, f"`{path} --help` shows how it is used.")
