"""What is said when a person stops waiting for a batch on a server, which goes on there.

Used by all commands that wait: `batches watch`, `batches results --follow`, `run --server`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape

from lowtide.cli.terminal import console
from lowtide.cli.terminal.command_errors import Terminated


@contextmanager
def hint_on_stop(server: str, again: str, batch_id: str | None = None) -> Iterator[None]:
    """Says, when Ctrl-C or SIGTERM ends the context, that the batch goes on at `server`, and what
    the same command then does (`again`: a verb and its object); of a batch that is known by then,
    what ends it.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        words = f"The batch goes on at {escape(server)}. The same command {again}"
        if batch_id is not None:
            words += f", `lowtide batches cancel {escape(batch_id)}` ends it"
        console.info(f"{words}.")
        raise
