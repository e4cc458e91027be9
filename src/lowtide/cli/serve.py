"""`lowtide serve` and `lowtide worker`: a Lowtide in the foreground, until it is told to stop."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.panel import Panel

from lowtide import __version__, config
from lowtide.cli import exits, screen
from lowtide.cli.event_loop import new_event_loop
from lowtide.cli.logs import log_to_stderr
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.cli.serving import address_of, bind, listening
from lowtide.config import Settings
from lowtide.wiring import Application, EmbeddedModel, Role, open_application

Body = Callable[["Stopper"], Coroutine[Any, Any, None]]


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
    role: Annotated[Role, typer.Option(help="Which parts to run.")] = "all",
    as_json: JsonOption = False,
) -> None:
    """Start a server. Ctrl-C or SIGTERM stops it in good order; twice, at once.

    Settings come from the defaults, the file, LOWTIDE_* variables and these options, in that order.
    """
    if slots is not None and model is None:
        raise typer.BadParameter("--slots goes with --model.")
    flags = {"server.host": host, "server.port": port}
    flags["server.data_dir"] = str(data_dir) if data_dir is not None else None
    settings = config.load(config_file, flags=flags)
    embedded = EmbeddedModel(model, slots=slots) if model is not None else None
    log_to_stderr()
    if role == "worker":
        run_until_stopped(_work(settings, embedded, as_json=as_json))
        return
    bound = bind(settings.server.host, settings.server.port)
    server = msgspec.structs.replace(settings.server, port=bound.getsockname()[1])
    settings = msgspec.structs.replace(settings, server=server)
    run_until_stopped(_serve(settings, role, embedded, bound, as_json=as_json))


def worker(config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Start a worker: everything but the HTTP door. Many may share one database and bucket."""
    settings = config.load(config_file)
    log_to_stderr()
    run_until_stopped(_work(settings, None, as_json=as_json))


def _serve(
    settings: Settings,
    role: Role,
    embedded: EmbeddedModel | None,
    bound: socket.socket,
    *,
    as_json: bool,
) -> Body:
    async def body(stopper: "Stopper") -> None:
        opening = open_application(settings, role=role, embedded=embedded, on_progress=_tell)
        async with opening as application:
            assert application.asgi is not None
            async with listening(application.asgi, bound) as serving:
                _announce(address_of(bound), application, role, as_json=as_json)
                await stopper.wait(serving)
                _tell("stopping: finishing what is in flight; Ctrl-C again stops at once")

    return body


def _work(settings: Settings, embedded: EmbeddedModel | None, *, as_json: bool) -> Body:
    async def body(stopper: "Stopper") -> None:
        opening = open_application(settings, role="worker", embedded=embedded, on_progress=_tell)
        async with opening as application:
            if as_json:
                screen.emit_json_line({"pid": os.getpid(), "models": list(application.models)})
            else:
                screen.note(f"This worker serves {_models(application)}.")
            await stopper.wait()
            _tell("stopping: finishing what is in flight; Ctrl-C again stops at once")

    return body


class Stopper:
    """What a signal does: before `wait` it abandons the start, during it it ends the wait.

    The second signal ends the process on the spot, which loses nothing that was committed.
    """

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task
        self._asked = asyncio.Event()
        self._is_waited_for = False

    def ask(self, exit_code: int) -> None:
        if self._asked.is_set():
            os._exit(exit_code)
        self._asked.set()
        if not self._is_waited_for:
            self._task.cancel()

    async def wait(self, serving: "asyncio.Task[None] | None" = None) -> None:
        """Until a signal comes, or `serving` ends by itself, which raises what ended it."""
        self._is_waited_for = True
        asked = asyncio.create_task(self._asked.wait())
        try:
            watched = {asked} if serving is None else {asked, serving}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        if serving is not None and serving.done():
            serving.result()


def run_until_stopped(body: Body) -> None:
    """Run `body` with SIGINT and SIGTERM led to its stopper. Raises KeyboardInterrupt for a start
    that was abandoned."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        stopper = Stopper(task)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stopper.ask, exits.INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, stopper.ask, exits.TERMINATED)
        await body(stopper)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            runner.run(main())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def _tell(what: str) -> None:
    screen.note(f"[dim]{escape(what)}[/]")


def _models(application: Application) -> str:
    return escape(", ".join(application.models)) or "no model"


def _announce(address: str, application: Application, role: Role, *, as_json: bool) -> None:
    """Where it listens and how to use it; one JSON line for scripts, which also learn the port."""
    models = list(application.models)
    if as_json:
        screen.emit_json_line({"address": address, "pid": os.getpid(), "models": models})
        return
    if not screen.OUT.is_terminal:
        screen.say(f"Lowtide {__version__} listens on {address} and serves {_models(application)}")
        return
    example = (
        "[dim]# pip install together[/]\n"
        f'client = Together(base_url="{address}", api_key="none")\n'
        'file = client.files.upload("batch.jsonl", purpose="batch-api")\n'
        "job = client.batches.create(input_file_id=file.id,\n"
        '                            endpoint="/v1/chat/completions").job\n\n'
        "[dim]# pip install openai[/]\n"
        f'client = OpenAI(base_url="{address}/v1", api_key="none")\n'
        'file = client.files.create(file=open("batch.jsonl", "rb"), purpose="batch")\n'
        "batch = client.batches.create(input_file_id=file.id,\n"
        '                              endpoint="/v1/chat/completions", completion_window="24h")'
    )
    facts = f"[bold]{address}[/]\nmodels  {_models(application)}\n"
    facts += f"data    {escape(str(application.settings.server.data_dir))}\n\n"
    screen.OUT.print(
        Panel(
            facts + example,
            title=f"Lowtide {__version__}",
            subtitle="Ctrl-C stops",
            expand=False,
            border_style="cyan",
        )
    )
    if not models and role == "all":
        screen.note(
            "[yellow]No model is served yet:[/] batches will wait. Add a [[replica]] to"
            " lowtide.toml, or start with --model demo."
        )
