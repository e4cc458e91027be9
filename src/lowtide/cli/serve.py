"""`lowtide serve` and `lowtide worker`: their options. What they do is in `foreground`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from lowtide.cli.logs import log_to_stderr
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.cli.settings import read_settings


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
    """Start a server. Ctrl-C or SIGTERM stops it in good order; twice, at once.

    Settings come from the defaults, the file, LOWTIDE_* variables and these options, in that order.
    """
    if slots is not None and model is None:
        raise typer.BadParameter("--slots goes with --model.")
    flags = {
        "server.host": host,
        "server.port": port,
        "server.data_dir": str(data_dir) if data_dir else None,
    }
    settings = read_settings(config_file, flags, always_say=True)
    from lowtide.cli.foreground import run_until_stopped, serve_body, work_body
    from lowtide.cli.serving import bind
    from lowtide.wiring import EmbeddedModel

    embedded = EmbeddedModel(model, slots=slots) if model is not None else None
    log_to_stderr()
    if role == "worker":
        run_until_stopped(work_body(settings, embedded, as_json=as_json))
        return
    bound = bind(settings.server.host, settings.server.port)
    server = msgspec.structs.replace(settings.server, port=bound.getsockname()[1])
    settings = msgspec.structs.replace(settings, server=server)
    with bound:
        run_until_stopped(serve_body(settings, role, embedded, bound, as_json=as_json))


def worker(
    config_file: ConfigOption = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Show metrics there, at server.host, without a key."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start a worker: everything but the HTTP door. Many may share one database and bucket."""
    from lowtide.cli.foreground import run_until_stopped, work_body

    log_to_stderr()
    settings = read_settings(config_file, {"server.metrics_port": metrics_port}, always_say=True)
    run_until_stopped(work_body(settings, None, as_json=as_json))
