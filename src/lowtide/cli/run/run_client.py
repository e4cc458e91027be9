"""A client for a run: of the server named, or of a local one that lasts as long as the run.

Both kinds of run, over lines and over rows, work through it. Invariant: a run that
ends early says how to go on.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.markup import escape

from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.client.stopped import hint_on_stop
from lowtide.cli.options import connect
from lowtide.cli.run.run_state import KeptState, RunFolder
from lowtide.cli.run.run_target import RunBackend
from lowtide.cli.terminal import command_errors, console

LOCAL_POLL_S_MAX: Final = 1.0  # asking oneself costs nothing
LOCAL_OUTAGE_S_MAX: Final = 0.0  # a server in this very process does not come back


def discard_previous(folder: RunFolder, kind: type[KeptState], api_key: str | None) -> None:
    """Clears what an earlier process left; cancels its batches on a server, if possible."""
    try:
        state = folder.load(kind)
    except command_errors.CommandError:
        state = None
    if state is not None and state.server is not None and state.unfinished:
        batch_id = state.unfinished[0]
        try:
            with connect(state.server, api_key) as client:
                for batch_id in state.unfinished:
                    client.cancel_batch(batch_id)
        except command_errors.CommandError as error:
            console.info(
                f"[yellow]The earlier batch {escape(batch_id)} on {escape(state.server)}"
                f" could not be cancelled:[/] {escape(error.message)}"
            )
    folder.clear()


@contextmanager
def full_disk_named(folder: RunFolder) -> Iterator[None]:
    """Lets the failure of a write say which disk is full: that of the output and its folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(folder.path.absolute().parent)
        raise


@contextmanager
def run_client(backend: RunBackend, folder: RunFolder, *, quiet: bool) -> Iterator[ServerClient]:
    """Yields a client of the server, and says how to go on when the context ends early."""
    if backend.server is not None:
        again = "waits for it again and fetches the results"
        with (
            full_disk_named(folder),
            connect(backend.server, backend.api_key) as client,
            hint_on_stop(backend.server, again),
        ):
            yield client
        return
    # The whole server is slow to load.
    from lowtide.cli.run.local_server import LocalServer
    from lowtide.cli.server.logs import log_to_file

    log_to_file(folder.log_file)

    def tell(what: str) -> None:
        if not quiet:
            console.info(f"[dim]{escape(what)}[/]")

    def on_drain() -> None:
        console.info("Stopping: saving what is done. Ctrl-C again stops at once.")

    def on_end_at_once() -> None:
        console.end_line()  # the terminal has shown ^C on it
        console.info("Stopped at once: what was in flight runs again.")
        _tell_kept(folder)

    settings = backend.settings_in(folder.data_dir)
    try:
        with (
            full_disk_named(folder),
            LocalServer(
                settings,
                backend.embedded,
                on_progress=tell,
                on_drain=on_drain,
                on_end_at_once=on_end_at_once,
            ) as local,
            connect(local.address, None) as client,
        ):
            yield client
    except (KeyboardInterrupt, command_errors.Terminated):
        _tell_kept(folder)
        raise
    except ServerRefused as error:
        if error.status >= 500:
            error.hint = f"Its log is {folder.log_file}."
        raise


def _tell_kept(folder: RunFolder) -> None:
    if folder.has_begun:
        console.info(f"Kept in {escape(str(folder.path))}. The same command goes on from there.")
