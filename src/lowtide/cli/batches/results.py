"""Fetching a batch's results: at its end, in between, or line by line while it runs."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import httpx
from rich.markup import escape

from lowtide.cli.client.objects import BatchView, JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.client.wait import watch
from lowtide.cli.client.whole_file import whole_file
from lowtide.cli.terminal import console
from lowtide.cli.terminal.progress import BatchBar, transfer_bar
from lowtide.cli.terminal.standard_streams import is_standard


def collect(
    client: ServerClient,
    batch: BatchView,
    output: Path,
    errors: Path,
    *,
    quiet: bool,
    has_output: bool = False,
) -> JsonObject:
    """Downloads what the batch has; where it went, and how many lines there are. An `output` of `-`
    is standard output; `has_output`: it has the lines already.

    A batch that ended without a single success leaves an empty output, so that whatever reads it
    next finds a file. A batch that failed validation leaves nothing.
    """
    collected: JsonObject = {"output": None, "output_lines": 0, "errors": None, "error_lines": 0}
    if has_output:
        collected |= {"output": str(output), "output_lines": batch.counts.completed}
    elif batch.output_id is not None:
        collected["output"] = str(output)
        collected["output_lines"] = _fetch(client, batch.output_id, output, quiet)
    elif is_standard(output):
        pass
    elif batch.is_over and batch.status != "failed" and not output.exists():
        output.touch()
        collected["output"] = str(output)
    if batch.error_id is not None:
        collected["errors"] = str(errors)
        collected["error_lines"] = _fetch(client, batch.error_id, errors, quiet)
    return collected


def collect_joined(client: ServerClient, batch_id: str, output: Path, errors: Path) -> JsonObject:
    """Downloads the results of the batch and its retries, each line once; where they went, and how
    many lines there are. Lines without success in any of them go to `errors`."""
    good: BinaryIO
    with ExitStack() as stack:
        if is_standard(output):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="lowtide-")))
            good = stack.enter_context((folder / "output").open("w+b"))
        else:
            good = stack.enter_context(whole_file(output))
        bad = stack.enter_context(whole_file(errors))
        split = client.steering.split_results(batch_id, good, bad)
        if is_standard(output):
            good.seek(0)
            shutil.copyfileobj(good, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    if not split.error_lines:
        errors.unlink()
    return {
        "output": str(output),
        "output_lines": split.output_lines,
        "errors": str(errors) if split.error_lines else None,
        "error_lines": split.error_lines,
    }


def _fetch(client: ServerClient, file_id: str, target: Path, quiet: bool) -> int:
    if is_standard(target):
        copied = client.copy(file_id, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return copied.lines
    if quiet:
        return client.download(file_id, target).lines
    with transfer_bar(f"Downloading {target.name}") as advance:
        return client.download(file_id, target, advance).lines


def follow(client: ServerClient, batch_id: str, output: Path, *, quiet: bool) -> JsonObject:
    """Writes result lines to `output` as they are committed, until the batch is over.

    They come in the order in which they finished; `collect` then puts the file in input order.
    """
    with _opened(output) as stream, BatchBar(quiet=quiet) as bar:
        tail = _Tail(client, stream)
        if not quiet and not is_standard(output):
            console.info(f"Lines are written to {escape(str(output))} as they finish.")
        answer = watch(client, batch_id, bar, on_change=tail.take)
        tail.take(answer, read_view(answer, BatchView))  # what a broken connection left out
        return answer


@contextmanager
def _opened(output: Path) -> Iterator[BinaryIO]:
    if is_standard(output):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with output.open("wb") as stream:
        yield stream


class _Tail:
    """The growing copy of a batch's output file."""

    def __init__(self, client: ServerClient, stream: BinaryIO) -> None:
        self._client = client
        self._stream = stream
        self._lines = 0

    def take(self, _answer: JsonObject, batch: BatchView) -> None:
        """Appends what is new. After a broken connection the next call does it again."""
        if batch.output_id is None or self._lines >= batch.counts.completed:
            return
        before = self._stream.tell() if self._stream.seekable() else None
        try:
            self._lines = self._client.copy_growth(batch.output_id, self._lines, self._stream)
        except httpx.TransportError:
            if before is None:
                raise
            self._stream.seek(before)
            self._stream.truncate()
        self._stream.flush()
