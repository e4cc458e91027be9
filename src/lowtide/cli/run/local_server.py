"""A whole Lowtide inside `lowtide run` or a Python program: on a free port of this machine, in a
thread of its own.

The caller talks to it over HTTP like to any server, so that a run behaves the same either way.
Leaving the context drains: what is in flight may finish within `limits.DRAIN_S`, and is committed.
A process that dies instead loses what was in flight, nothing else.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Self

import msgspec

from lowtide import limits
from lowtide.cli.client.http_client import ServerUnreachable
from lowtide.cli.server.event_loop import new_event_loop
from lowtide.cli.server.listening import address_of, bind, listening
from lowtide.cli.terminal import command_errors
from lowtide.config import Settings
from lowtide.wiring import EmbeddedModel, open_application


class LocalServer:
    """A context manager. Entering waits until it answers; raises what kept it from starting."""

    def __init__(
        self,
        settings: Settings,
        embedded: EmbeddedModel | None,
        *,
        on_progress: Callable[[str], None],
        on_drain: Callable[[], None],
        on_end_at_once: Callable[[], None] = lambda: None,
        is_whole_process: bool = True,
    ) -> None:
        """`on_drain` is called when the server begins to stop on request.

        `is_whole_process`: a second Ctrl-C may end the process, right after a call of
        `on_end_at_once`; else it only cuts the drain short.
        """
        self._settings = settings
        self._embedded = embedded
        self._on_progress = on_progress
        self._on_drain = on_drain
        self._on_end_at_once = on_end_at_once
        self._is_whole_process = is_whole_process
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._settled = threading.Event()
        self._is_up = False
        self._failure: BaseException | None = None
        # A daemon: when the main thread gives up waiting, the process can end.
        self._thread = threading.Thread(target=self._run, name="lowtide", daemon=True)
        self.address = ""

    def __enter__(self) -> Self:
        bound = bind("127.0.0.1", 0)
        self.address = address_of(bound)
        self._bound = bound
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:  # Ctrl-C while a model loads
            self._leave()
            raise
        if not self._is_up:
            self._thread.join()
            assert self._failure is not None
            raise self._failure
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        is_asked = isinstance(error, KeyboardInterrupt | command_errors.Terminated)
        self._leave(self._on_drain if is_asked else None)
        if isinstance(error, ServerUnreachable) and self._failure is not None:
            raise self._failure from None  # why it is gone, rather than that it is

    def _leave(self, tell: Callable[[], None] | None = None) -> None:
        """Stops and waits for the end; a second Ctrl-C stops at once, from `tell` on."""

        def end_now(_signal: int, _frame: FrameType | None) -> None:
            if self._is_whole_process:
                self._on_end_at_once()
                os._exit(command_errors.INTERRUPTED)
            self._call(self._end_at_once)

        is_main = threading.current_thread() is threading.main_thread()  # signals come to no other
        before = signal.signal(signal.SIGINT, end_now) if is_main else None
        try:
            if tell is not None:
                tell()
            self._call(self._ask_to_stop)
            self._thread.join()
        finally:
            if is_main:
                signal.signal(signal.SIGINT, before)

    def _call(self, what: Callable[[], None]) -> None:
        """Calls `what` in the thread of the server, if that still runs."""
        with suppress(RuntimeError):  # its loop was closed meanwhile
            if self._loop is not None:
                self._loop.call_soon_threadsafe(what)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end_at_once(self) -> None:
        """Cancels whatever the server waits for, again and again: the first time may only begin its
        end, when both signals came at once.
        """
        if self._loop is not None and self._task is not None and not self._task.done():
            self._task.cancel()
            self._loop.call_later(limits.END_AT_ONCE_S, self._end_at_once)

    def _ask_to_stop(self) -> None:
        if self._is_up and self._stop is not None:
            self._stop.set()
        else:
            self._cancel()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve(self._bound))
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._failure = error
        finally:
            self._settled.set()

    async def _serve(self, bound: socket.socket) -> None:
        self._task = asyncio.current_task()
        self._stop = asyncio.Event()
        server = msgspec.structs.replace(
            self._settings.server, host="127.0.0.1", port=bound.getsockname()[1], public_url=None
        )
        settings = msgspec.structs.replace(self._settings, server=server)
        opening = open_application(settings, embedded=self._embedded, on_progress=self._on_progress)
        async with opening as application:
            assert application.asgi is not None
            async with listening(application.asgi, bound) as serving:
                self._is_up = True
                self._settled.set()
                stop = asyncio.create_task(self._stop.wait())
                await asyncio.wait({stop, serving}, return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
