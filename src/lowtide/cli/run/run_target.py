"""Who answers a run: an embedded model, an engine, or a server; from the options and the settings.

`run_plan` and `table_plan` ask here before anything is started or sent. `--model` names the model
to ask; where neither `--url` nor `--server` is given, it is also what the embedded engine loads.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
import typer
from rich.markup import escape

from lowtide import config, limits
from lowtide.cli.client.address import is_this_machine, server_address, shown
from lowtide.cli.options import connect
from lowtide.cli.terminal import console
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.units import listed
from lowtide.config import AuthSettings, LimitSettings, ReplicaSettings, Settings
from lowtide.core.reporting.shown_url import shown_url

if TYPE_CHECKING:
    from lowtide.wiring import EmbeddedModel

ALL: Final = 2**53
"""No bound: a run with its own server is limited by this machine, not by a service's promise."""
_WINDOW: Final = "7d"
"""A run may be stopped tonight and gone on with tomorrow; it must not expire in between."""


@dataclass(frozen=True, slots=True)
class RunTarget:
    """The options that say who answers."""

    model: str | None
    url: str | None
    server: str | None
    window: int | None
    config_file: Path | None
    api_key: str | None

    @property
    def is_embedded(self) -> bool:
        """Whether `model` is to be loaded here."""
        return self.model is not None and self.url is None and self.server is None

    @property
    def override(self) -> str | None:
        """The model that every line is to ask, whatever it names; None: the one that it names."""
        return None if self.is_embedded else self.model


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options that say how to run."""

    endpoint: str | None
    restart: bool = False
    force: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class RunBackend:
    """What was decided. `server` None: a local server, with these settings."""

    server: str | None
    api_key: str | None
    settings: Settings
    embedded: "EmbeddedModel | None"

    @property
    def completion_window(self) -> str | None:
        """What a batch asks for; None: the default of the server."""
        return None if self.server is not None else _WINDOW

    def settings_in(self, data_dir: Path) -> Settings:
        """The settings for a local server that keeps everything in `data_dir`."""
        server = msgspec.structs.replace(
            self.settings.server, data_dir=data_dir, database_url="sqlite", blob_url="file"
        )
        return msgspec.structs.replace(self.settings, server=server)

    @property
    def mapped(self) -> str | None:
        """Which names of the input another model answers for, in words; None where none are."""
        if self.embedded is None or not self.embedded.aliases:
            return None
        return f"{self.embedded.spec} answers for {listed(self.embedded.aliases)}."


def check_target(target: RunTarget, settings: Settings) -> str | None:
    """The server to hand the work to; None when a local server is to do it.

    Raises CommandError when nothing says who answers, or no engine is there; typer.BadParameter.
    """
    if target.url is not None and target.server is not None:
        raise typer.BadParameter("--url and --server exclude each other.")
    server = _server_of(target, settings)
    if server is not None and target.window is not None:
        raise typer.BadParameter("--window goes with --model or --url; a server has its own.")
    if target.url is not None:
        _check_engine(target.url)
    return server


def resolve_backend(
    target: RunTarget, settings: Settings, server: str | None, names: tuple[str, ...]
) -> RunBackend:
    """`names`: the models that requests name. Raises CommandError where the engine lists others."""
    if target.url is not None:
        _check_served(target, names)
    return RunBackend(
        server=server,
        api_key=target.api_key,
        settings=_settings_for(settings, target, names),
        embedded=_embedded_for(target, names),
    )


def model_asked(target: RunTarget, settings: Settings, server: str | None) -> str:
    """The name by which the rows of a table ask for their model. Raises CommandError where nothing
    says which one, and there is not just one."""
    if target.model is not None:
        # A path would be an odd name for a model; the file's own name says as much.
        is_path = target.is_embedded and target.model.endswith(".gguf")
        return Path(target.model).stem if is_path else target.model
    if target.url is not None:
        known = served_models(target.url, target.api_key)
    elif server is not None:
        with connect(server, target.api_key) as client:
            known = client.models()
    else:
        served = (name for each in settings.replica for name in (*each.models, *each.names))
        known = tuple(dict.fromkeys(name for name in served if name != "*"))
    if len(known) != 1:
        raise CommandError(
            "Nothing says which model is to answer.",
            f"Give --model: {', '.join(known)}" if known else "Give --model NAME.",
            code="missing_model",
        )
    return known[0]


def backend_of(target: RunTarget) -> tuple[RunBackend, str]:
    """Who answers, and by which name the one model is asked. Raises CommandError, ConfigError."""
    settings = config.load(target.config_file)
    server = check_target(target, settings)
    model = model_asked(target, settings, server)
    return resolve_backend(target, settings, server, (model,)), model


def _server_of(target: RunTarget, settings: Settings) -> str | None:
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
    """Checks that the address accepts connections, without a request. Raises CommandError."""
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


def _engine_url(url: str) -> str:
    return url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1"


def served_models(url: str, api_key: str | None) -> tuple[str, ...]:
    """The models that an engine lists; empty where it has no such list."""
    try:
        answer = httpx.get(
            f"{_engine_url(url).rstrip('/')}/models",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=limits.CLIENT_CONNECT_TIMEOUT_S,
            trust_env=not is_this_machine(url),
        )
        listed: Any = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return ()
    data = listed.get("data") if isinstance(listed, dict) else listed
    entries = data if isinstance(data, list) else []
    return tuple(str(each["id"]) for each in entries if isinstance(each, dict) and each.get("id"))


def _check_served(target: RunTarget, names: tuple[str, ...]) -> None:
    """Refuses a file of requests that the engine would refuse one by one. Raises CommandError.

    A model that was asked for by its option is only warned of: some engines take names that they do
    not list.
    """
    assert target.url is not None
    served = served_models(target.url, target.api_key)
    known = {*served, *(name.removesuffix(":latest") for name in served)}  # as Ollama reads them
    others = [name for name in names if name not in known]
    if not served or not others:
        return
    message = (
        f"The engine at {shown_url(target.url)} does not list {listed(others)};"
        f" it lists {listed(served)}."
    )
    if target.model is not None:
        console.info(f"[yellow]Warning:[/] {escape(message)}")
        return
    raise CommandError(
        message,
        f"Give --model {served[0]} to ask that one, whatever the lines name.",
        code="model_not_served",
    )


def _settings_for(settings: Settings, target: RunTarget, names: tuple[str, ...]) -> Settings:
    """The settings of a local server: who answers, and no limit but the machine's."""
    replicas = settings.replica
    if target.url is not None:
        replicas = (
            ReplicaSettings(url=_engine_url(target.url), models=names, api_key=target.api_key),
        )
    elif target.model is not None:
        replicas = ()
    if target.window is not None:
        replicas = tuple(msgspec.structs.replace(r, window=target.window) for r in replicas)
    unlimited = LimitSettings(
        requests_per_batch=ALL,
        file_bytes=ALL,
        enqueued_tokens_per_model=ALL,
        completion_window_default=_WINDOW,
        line_bytes=settings.limits.line_bytes,
    )
    has_own_models = target.model is None and target.url is None
    return msgspec.structs.replace(
        settings,
        auth=AuthSettings(),
        limits=unlimited,
        replica=replicas,
        model=settings.model if has_own_models else (),
    )


def _embedded_for(target: RunTarget, names: tuple[str, ...]) -> "EmbeddedModel | None":
    """The embedded model, under every name that the input calls it by."""
    if not target.is_embedded or target.model is None:
        return None
    from lowtide.wiring import EmbeddedModel  # slow, and of no use with --url or --server

    others = tuple(name for name in names if name != target.model)
    return EmbeddedModel(target.model, slots=target.window, aliases=others)
