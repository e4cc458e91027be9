"""What a run is going to do, decided before anything is started or sent.

Turns the options of `lowtide run` and a first pass over the input into a `Job`, or into an error
that says what to change. Nothing here has an effect.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import typer
from rich.markup import escape

from lowtide import config, limits
from lowtide.cli.batches.input_file import (
    Inspection,
    guess_endpoint,
    guess_purpose,
    holds_rows,
    inspect,
    names_and_requests,
    readable_input,
)
from lowtide.cli.batches.outputs import writable_target
from lowtide.cli.batches.validate import known_endpoint, offline_planner, show_failure
from lowtide.cli.run.run_state import RunState
from lowtide.cli.run.run_target import ALL, RunBackend, RunTarget, check_target, resolve_backend
from lowtide.cli.terminal import command_errors, console
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.progress import delayed_bar
from lowtide.config import LimitSettings, Settings
from lowtide.core.batches.plan import Plan
from lowtide.core.files.file import dialect_of_purpose
from lowtide.core.validation.first_line import Purpose
from lowtide.core.validation.validator import ValidationFailure


@dataclass(frozen=True, slots=True)
class Job:
    """A run, with all that it needs to know. `state` is how it would be recorded at its start."""

    source: Path
    purpose: Purpose
    state: RunState
    backend: RunBackend


def check_paths(source: Path, output: Path, errors: Path) -> None:
    """Refuses what cannot be read or written. Raises CommandError."""
    readable_input(source)
    writable_target(output)
    writable_target(errors, "--errors", "errors.jsonl")
    for target in (output, errors):
        if target.exists() and target.samefile(source):
            raise CommandError(f"{target} is the input itself.", "Choose another -o.")
        if target.exists() and not target.is_file():
            raise CommandError(f"{target} is no regular file.", "Choose a file with -o.")
    if output.absolute() == errors.absolute():
        raise CommandError("Results and errors cannot go to the same file.")


def plan_job(source: Path, endpoint: str | None, target: RunTarget) -> Job:
    """Reads the input and decides who answers. Raises CommandError, ConfigError, typer.Exit."""
    settings = config.load(target.config_file)
    server = check_target(target, settings)
    purpose = guess_purpose(source)
    path = known_endpoint(endpoint) if endpoint else guess_endpoint(source)
    inspection = _inspect(source, purpose, path, _as_judged(settings, server))
    assert isinstance(inspection.result, Plan)
    names = tuple(names_and_requests(inspection.result))
    state = RunState(
        input=str(source),
        sha256=inspection.sha256,
        endpoint=path,
        server=server,
        model=target.model,
    )
    return Job(source, purpose, state, resolve_backend(target, settings, server, names))


def _as_judged(settings: Settings, server: str | None) -> Settings:
    """The settings as far as they hold for lines: those of another server are not known here."""
    line_bytes = limits.LINE_BYTES_MAX if server is not None else settings.limits.line_bytes
    return msgspec.structs.replace(settings, limits=LimitSettings(line_bytes=line_bytes))


def _inspect(source: Path, purpose: Purpose, endpoint: str, settings: Settings) -> Inspection:
    """The input as the server will judge it. Shows what is bad, and ends the command with 3."""
    validator = offline_planner(settings).begin(
        known_endpoint(endpoint), dialect_of_purpose(purpose), ALL, takes_any_model=True
    )
    with delayed_bar(f"checking {source.name}", limits.VALIDATE_PROGRESS_AFTER_S) as advance:
        inspection = inspect(source, validator, advance)
    if isinstance(inspection.result, ValidationFailure):
        show_failure(inspection.result)
        if holds_rows(source):
            console.info(
                "Are these rows of a table? --prompt '... {{ column }} ...' asks about each."
            )
        raise typer.Exit(command_errors.BATCH_FAILED)
    for warning in inspection.warnings:
        console.info(f"[yellow]Warning:[/] {escape(warning.message)}")
    return inspection
