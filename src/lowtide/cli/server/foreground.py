"""A Lowtide in the foreground: open, announce, wait for a signal, close in good order.

The bodies of `lowtide serve` and `lowtide worker`.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from rich.markup import escape

from lowtide.cli.client.address import DEFAULT_SERVER
from lowtide.cli.server.event_loop import new_event_loop
from lowtide.cli.server.reloading import SettingsReader, reloading
from lowtide.cli.terminal import command_errors, console
from lowtide.config import Settings
from lowtide.config.exposure import exposed_names
from lowtide.system import spare_collections
from lowtide.version import VERSION
from lowtide.wiring import Application, EmbeddedModel, Role, open_application

Body = Callable[["StopSignal"], Coroutine[Any, Any, None]]


def serve_body(
    settings: Settings,
    role: Role,
    embedded: EmbeddedModel | None,
    bound: socket.socket,
    reader: SettingsReader,
    *,
    as_json: bool,
) -> Body:
    """The body of `lowtide serve`. `reader` reads them again, for a reload."""
    from lowtide.cli.server.listening import address_of, listening  # what a worker never does

    async def body(stopper: "StopSignal") -> None:
        opening = open_application(settings, role=role, embedded=embedded, on_progress=_tell)
        async with opening as application:
            assert application.asgi is not None
            delay_s = settings.server.shutdown_delay_s
            async with (
                reloading(stopper.reload_asked, reader, application),
                listening(application.asgi, bound, delay_s=delay_s) as serving,
            ):
                address = address_of(bound) + settings.server.path_prefix
                _announce(address, application, role, as_json=as_json)
                spare_collections()
                await stopper.wait(serving)
                application.begin_drain()
                _tell("stopping: finishing what is in flight; Ctrl-C again stops at once")

    return body


def work_body(
    settings: Settings,
    embedded: EmbeddedModel | None,
    reader: SettingsReader,
    *,
    as_json: bool,
) -> Body:
    """The body of `lowtide worker`: like `serve_body`, without an HTTP API."""
    from lowtide.cli.server.worker_metrics import shown_metrics

    async def body(stopper: "StopSignal") -> None:
        opening = open_application(settings, role="worker", embedded=embedded, on_progress=_tell)
        shown = shown_metrics(settings.server.metrics_host, settings.server.metrics_port)
        with shown as metrics:
            async with (
                opening as application,
                reloading(stopper.reload_asked, reader, application),
            ):
                _announce_worker(application, metrics, as_json=as_json)
                spare_collections()
                await stopper.wait()
                _tell("stopping: finishing what is in flight; Ctrl-C again stops at once")

    return body


class StopSignal:
    """What a signal does: before `wait` it abandons the start, during it it ends the wait.

    The second signal ends the process on the spot, which loses nothing that was committed.
    """

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task
        self._asked = asyncio.Event()
        self.reload_asked = asyncio.Event()
        """Set by SIGHUP, which stops nothing."""
        self._is_waited_for = False

    def ask(self, exit_code: int) -> None:
        if self._asked.is_set():
            console.end_line()  # the terminal has shown ^C on it
            _tell("stopped at once; what was in flight runs again at the next start")
            os._exit(exit_code)
        self._asked.set()
        if not self._is_waited_for:
            self._task.cancel()

    async def wait(self, serving: "asyncio.Task[None] | None" = None) -> None:
        """Waits for a signal, or until `serving` ends by itself; raises the error that ended it."""
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
    """Runs `body` with SIGINT, SIGTERM and SIGHUP led to its stopper. Raises KeyboardInterrupt for
    a start that was abandoned.
    """

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        stopper = StopSignal(task)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stopper.ask, command_errors.INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, stopper.ask, command_errors.TERMINATED)
        loop.add_signal_handler(signal.SIGHUP, stopper.reload_asked.set)
        await body(stopper)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            runner.run(main())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def _tell(what: str) -> None:
    console.info(f"[dim]{escape(what)}[/]")


def exposed_without_keys(settings: Settings) -> str | None:
    """The warning for an open server whose names other machines may know; None: no warning."""
    server = settings.server
    names = exposed_names(server.public_url, server.allowed_hosts)
    if settings.auth.mode != "open" or not names:
        return None
    return (
        f"No keys are asked for, and {', '.join(names)} may be known to others: whoever reaches it"
        " can upload, run and read. For callers on other machines set auth.mode = 'keys'."
    )


def _models(application: Application) -> str:
    return escape(", ".join(application.models)) or "no model"


def _announce_worker(application: Application, metrics: str | None, *, as_json: bool) -> None:
    if as_json:
        announced = {"pid": os.getpid(), "models": list(application.models)}
        console.emit_json_line(announced if metrics is None else announced | {"metrics": metrics})
        return
    where = "" if metrics is None else f" Its metrics are at {escape(metrics)}."
    console.info(f"This worker serves {_models(application)}.{where}")


def _announce(address: str, application: Application, role: Role, *, as_json: bool) -> None:
    """Says where the server listens and how to use it; one JSON line for scripts, which
    also learn the port.
    """
    models = list(application.models)
    if as_json:
        console.emit_json_line({"address": address, "pid": os.getpid(), "models": models})
        return
    if not models and role == "all":
        console.info(
            "[yellow]No model is served yet:[/] batches will wait. Add a "
            + escape("[[replica]]")
            + " to lowtide.toml, or start with --model demo."
        )
    if (warning := exposed_without_keys(application.settings)) is not None:
        console.info(f"[yellow]{escape(warning)}[/]")
    if not console.OUT.is_terminal:
        console.write(f"Lowtide {VERSION} listens on {address} and serves {_models(application)}")
        return
    named = "" if address == DEFAULT_SERVER else f" --server {address}"
    data_dir = escape(str(application.settings.server.data_dir))
    console.write(
        f"[bold]Lowtide {VERSION}[/]  [bold cyan]{address}[/]  [dim](Ctrl-C stops)[/]\n"
        f"  models  {_models(application)}\n"
        f"  data    {data_dir}\n"
        "Next, in another terminal:\n"
        f"  lowtide batches create batch.jsonl{named}\n"
        "Or with the clients that you have:\n"
        f'  Together(base_url="{address}", api_key="none")\n'
        f'  OpenAI(base_url="{address}/v1", api_key="none")'
    )
