"""A client for a run: of the server named, or of one of our own that lasts as long as the run.

Both kinds of run, over lines and over rows, work through it. Invariant: a run that ends early says
how to go on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape

from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.options import connect
from lowtide.cli.run.run_state import RunFolder
from lowtide.cli.run.run_target import RunBackend
from lowtide.cli.server.logs import log_to_file
from lowtide.cli.terminal import command_errors, console


@contextmanager
def run_client(backend: RunBackend, folder: RunFolder, *, quiet: bool) -> Iterator[ServerClient]:
    """Says how to go on when the context ends early."""
    if backend.server is not None:
        with connect(backend.server, backend.api_key) as client:
            try:
                yield client
            except (KeyboardInterrupt, command_errors.Terminated):
                console.info(
                    f"The batch goes on at {escape(backend.server)}. The same command waits for"
                    " it again and fetches the results."
                )
                raise
        return
    from lowtide.cli.run.local_server import LocalServer  # the whole server: slow to load

    log_to_file(folder.log_file)

    def tell(what: str) -> None:
        if not quiet:
            console.info(f"[dim]{escape(what)}[/]")

    def on_drain() -> None:
        console.info("Stopping: saving what is done. Ctrl-C again stops at once.")

    settings = backend.settings_in(folder.data_dir)
    try:
        with (
            LocalServer(settings, backend.embedded, on_progress=tell, on_drain=on_drain) as local,
            connect(local.address, None) as client,
        ):
            yield client
    except (KeyboardInterrupt, command_errors.Terminated):
        if folder.has_begun:
            console.info(
                f"Kept in {escape(str(folder.path))}. The same command goes on from there."
            )
        raise
    except ServerRefused as error:
        if error.status >= 500:
            error.hint = f"Its log is {folder.log_file}."
        raise
