"""What a run is going to do, decided before anything is started or sent.

Turns the options of `lowtide run` and a first pass over the input into a `Job`, or into an error
that says what to change. Nothing here has an effect.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import typer
from rich.markup import escape

from lowtide import config, limits
from lowtide.cli import exits, screen
from lowtide.cli.address import server_address, shown
from lowtide.cli.bars import patient_bar
from lowtide.cli.exits import CommandError
from lowtide.cli.input_file import (
    Inspection,
    Purpose,
    guess_endpoint,
    guess_purpose,
    inspect,
    names_and_requests,
    readable_input,
)
from lowtide.cli.outputs import writable_target
from lowtide.cli.run_state import RunState
from lowtide.cli.validate import contexts_of, known_endpoint, show_failure
from lowtide.config import Auth, Dispatch, Limits, Replica, Settings
from lowtide.core.file import dialect_of_purpose
from lowtide.core.plan import Plan
from lowtide.core.shown_url import shown_url
from lowtide.core.validation import ValidationFailure, ValidationRules

if TYPE_CHECKING:
    from lowtide.wiring import EmbeddedModel

_ALL: Final = 2**53
"""No bound: a run with its own server is limited by this machine, not by a service's promise."""
_WINDOW: Final = "7d"
"""A run may be stopped tonight and gone on with tomorrow; it must not expire in between."""
_NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Target:
    """The options that say who answers."""

    model: str | None
    url: str | None
    server: str | None
    window: int | None
    config_file: Path | None
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a run needs to know. `state` is how it would be recorded at its start."""

    source: Path
    purpose: Purpose
    state: RunState
    api_key: str | None
    completion_window: str | None
    settings: Settings
    embedded: "EmbeddedModel | None"

    def settings_in(self, data_dir: Path) -> Settings:
        """The settings for a server of our own that keeps everything in `data_dir`."""
        server = msgspec.structs.replace(
            self.settings.server, data_dir=data_dir, database_url="sqlite", blob_url="file"
        )
        return msgspec.structs.replace(self.settings, server=server)

    @property
    def mapped(self) -> str | None:
        """Which names of the input another model answers for, in words; None where none are."""
        if self.embedded is None or not self.embedded.aliases:
            return None
        names = self.embedded.aliases
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return f"{self.embedded.spec} answers for {', '.join(names[:_NAMES_SHOWN])}{more}."


def check_paths(source: Path, output: Path, errors: Path) -> None:
    """Refuse what cannot be read or written. Raises CommandError."""
    readable_input(source)
    for target in (output, errors):
        writable_target(target)
        if target.exists() and target.samefile(source):
            raise CommandError(f"{target} is the input itself.", "Choose another -o.")
        if target.exists() and not target.is_file():
            raise CommandError(f"{target} is no regular file.", "Choose a file with -o.")
    if output.absolute() == errors.absolute():
        raise CommandError("Results and errors cannot go to the same file.")


def plan_job(source: Path, endpoint: str | None, target: Target) -> Job:
    """Read the input and decide who answers. Raises CommandError, ConfigError, typer.Exit."""
    chosen = [name for name in ("model", "url", "server") if getattr(target, name) is not None]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} exclude each other.")
    settings = config.load(target.config_file)
    server = _server_of(target, settings)
    if server is not None and target.window is not None:
        raise typer.BadParameter("--window goes with --model or --url; a server has its own.")
    if target.url is not None:
        _check_engine(target.url)
    purpose = guess_purpose(source)
    path = known_endpoint(endpoint) if endpoint else guess_endpoint(source)
    inspection = _inspect(source, purpose, path, settings)
    assert isinstance(inspection.result, Plan)
    names = tuple(names_and_requests(inspection.result))
    state = RunState(
        input=str(source),
        sha256=inspection.sha256,
        endpoint=path,
        server=server,
        model=target.model,
    )
    return Job(
        source=source,
        purpose=purpose,
        state=state,
        api_key=target.api_key,
        completion_window=None if server is not None else _WINDOW,
        settings=_settings_for(settings, target, names),
        embedded=_embedded_for(target, names),
    )


def _server_of(target: Target, settings: Settings) -> str | None:
    """The server to hand the file to; None when a server of our own is to do it.

    Raises CommandError when nothing says who answers.
    """
    if target.server is not None:
        return server_address(target.server)
    if target.model is not None or target.url is not None or settings.replica:
        return None
    from_environment = os.environ.get("LOWTIDE_SERVER")
    if from_environment:
        return server_address(from_environment)
    raise CommandError(
        "Nothing says what is to answer the requests.",
        "Give --model demo (a small model, to try it), --model FILE.gguf, --model org/name,"
        " --url http://host:port/v1 for an engine, or --server for a Lowtide.",
    )


def _check_engine(url: str) -> None:
    """Whether somebody listens there; nothing is asked. Raises CommandError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        usable = parts.scheme in ("http", "https") and bool(host) and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise CommandError(
            f"--url {shown(url)} is not an address.",
            "Example: http://127.0.0.1:9001/v1; a key goes into [[replica]] of a settings file.",
        )
    try:
        socket.create_connection((host, port), limits.CLIENT_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(
            f"No engine answers at {shown_url(url)}: {reason}.",
            "Start it first. The same command goes on with a run that was begun.",
            code="no_engine",
        ) from None


def _inspect(source: Path, purpose: Purpose, endpoint: str, settings: Settings) -> Inspection:
    """The input as the server will judge it. Shows what is bad, and ends the command with 3."""
    rules = ValidationRules(
        endpoint=known_endpoint(endpoint),
        dialect=dialect_of_purpose(purpose),
        requests_max=_ALL,
        contexts=contexts_of(settings),
    )
    with patient_bar(f"checking {source.name}", limits.VALIDATE_PROGRESS_AFTER_S) as advance:
        inspection = inspect(source, rules, advance)
    if isinstance(inspection.result, ValidationFailure):
        show_failure(inspection.result)
        raise typer.Exit(exits.BATCH_FAILED)
    for warning in inspection.warnings:
        screen.note(f"[yellow]Warning:[/] {escape(warning.message)}")
    return inspection


def _settings_for(settings: Settings, target: Target, names: tuple[str, ...]) -> Settings:
    """What a server of our own is started with: who answers, and no limit but the machine's."""
    replicas = settings.replica
    if target.model is not None:
        replicas = ()
    elif target.url is not None:
        url = target.url if urlsplit(target.url).path.strip("/") else f"{target.url.rstrip('/')}/v1"
        replicas = (Replica(url=url, models=names, api_key=target.api_key),)
    if target.window is not None:
        replicas = tuple(msgspec.structs.replace(r, window=target.window) for r in replicas)
    unlimited = Limits(
        requests_per_batch=_ALL,
        file_bytes=_ALL,
        enqueued_tokens_per_model=_ALL,
        completion_window_default=_WINDOW,
        line_bytes=settings.limits.line_bytes,
    )
    dispatch: Dispatch = settings.dispatch
    has_own_models = target.model is None and target.url is None
    return msgspec.structs.replace(
        settings,
        auth=Auth(),
        limits=unlimited,
        dispatch=dispatch,
        replica=replicas,
        model=settings.model if has_own_models else (),
    )


def _embedded_for(target: Target, names: tuple[str, ...]) -> "EmbeddedModel | None":
    """The model of our own, under every name that the input calls it by."""
    if target.model is None:
        return None
    from lowtide.wiring import EmbeddedModel  # slow, and of no use with --url or --server

    others = tuple(name for name in names if name != target.model)
    return EmbeddedModel(target.model, slots=target.window, aliases=others)
