"""`lowtide serve` and `lowtide worker`: their options. What they do is in `foreground`."""

import signal
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from lowtide.cli.options import ConfigOption, DataDirOption, JsonOption
from lowtide.cli.server.logs import log_to_stderr
from lowtide.cli.settings import read_settings
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.config import Settings, settings_file
from lowtide.data_dir import LOCK_FILE, locked_data_dir
from lowtide.system import without_collections


def serve(
    config_file: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 takes any free port.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State and files are kept here.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="demo|GGUF|HUB_ID", help="Also serve this model with an engine of our own."
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Requests that --model computes at once.")
    ] = None,
    role: Annotated[
        Literal["all", "api", "worker"], typer.Option(help="Which parts to run.")
    ] = "all",
    as_json: JsonOption = False,
) -> None:
    """Start a server. Ctrl-C or SIGTERM stops it in good order; twice, at once. SIGHUP, or a
    change of the settings file, reads the settings again.

    Settings come from the defaults, the file, LOWTIDE_* variables and these options, in that order.
    """
    if slots is not None and model is None:
        raise typer.BadParameter("--slots goes with --model.")
    flags = {
        "server.host": host,
        "server.port": port,
        "server.data_dir": str(data_dir) if data_dir else None,
    }
    outlive_hangup()
    settings = read_settings(config_file, flags, always_say=not as_json)
    port_asked = settings.server.port
    file = partial(settings_file, config_file, system=True)
    with without_collections():
        from lowtide.cli.server.foreground import run_until_stopped, serve_body, work_body
        from lowtide.cli.server.listening import bind
        from lowtide.cli.server.reloading import SettingsReader
        from lowtide.wiring import EmbeddedModel

        if role != "worker":
            import lowtide.api.app  # noqa: F401 - what opens the HTTP API imports it in any case

    embedded = EmbeddedModel(model, slots=slots) if model is not None else None
    log_to_stderr()
    if role == "worker":
        again = SettingsReader(partial(read_settings, config_file, flags), file)
        run_until_stopped(work_body(settings, embedded, again, as_json=as_json))
        return
    try:
        bound = bind(settings.server.host, settings.server.port)
    except CommandError:
        refuse_folder_in_use(settings.server.data_dir)  # says more than that a port is taken
        raise
    port_bound = bound.getsockname()[1]

    def read_again() -> Settings:
        fresh = read_settings(config_file, flags)
        return _at_port(fresh, port_bound) if fresh.server.port == port_asked else fresh

    settings = _at_port(settings, port_bound)
    with bound:
        again = SettingsReader(read_again, file)
        body = serve_body(settings, role, embedded, bound, again, as_json=as_json)
        run_until_stopped(body)


def worker(
    config_file: ConfigOption = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Show metrics there, without a key; 0: any free port."),
    ] = None,
    metrics_host: Annotated[
        str | None, typer.Option(help="Address of the metrics. Default: this machine only.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a worker: everything but the HTTP API. Many may share one database and bucket."""
    with without_collections():
        from lowtide.cli.server.foreground import run_until_stopped, work_body
        from lowtide.cli.server.reloading import SettingsReader

    log_to_stderr()
    outlive_hangup()
    flags = {
        "server.metrics_port": metrics_port,
        "server.metrics_host": metrics_host,
        "server.data_dir": str(data_dir) if data_dir else None,
    }
    settings = read_settings(config_file, flags, always_say=not as_json)
    again = SettingsReader(
        partial(read_settings, config_file, flags), partial(settings_file, config_file, system=True)
    )
    run_until_stopped(work_body(settings, None, again, as_json=as_json))


def refuse_folder_in_use(data_dir: Path) -> None:
    """Raises DataDirError where a Lowtide runs on this folder. Makes none."""
    if (data_dir / LOCK_FILE).exists():
        with locked_data_dir(data_dir):
            return


def outlive_hangup() -> None:
    """Ignores SIGHUP until the server can reload: it asks for a reload,
    and must not end a server.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _at_port(settings: Settings, port: int) -> Settings:
    """The settings with the port that is in use, where any free one was requested."""
    server = msgspec.structs.replace(settings.server, port=port)
    return msgspec.structs.replace(settings, server=server)
