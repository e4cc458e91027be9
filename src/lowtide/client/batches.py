"""`lowtide.Client`: batches of a Lowtide server, from a Python program.

Public. Submits a file or an iterable of requests, watches, gives results out while the batch runs,
cancels. Invariant: memory stays the same for any number of requests and of results.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from lowtide.cli.batches.input_file import guess_endpoint, guess_purpose, readable_input
from lowtide.cli.client.address import DEFAULT_SERVER
from lowtide.cli.client.http_client import ServerUnreachable
from lowtide.cli.client.objects import BatchView
from lowtide.cli.client.server_client import ServerClient, check_id
from lowtide.cli.client.wait import polled, watch
from lowtide.cli.options import connect
from lowtide.cli.terminal.progress import BatchBar
from lowtide.client.errors import translated
from lowtide.client.notebook import NotebookBar, in_notebook
from lowtide.client.objects import BatchInfo, RequestResult, batch_of, result_of
from lowtide.core.batches.batch import InFlight
from lowtide.core.batches.retry import RetryOnly
from lowtide.tables.json_text import json_bytes

_LIST_MAX: Final = 100  # of one call, protocol.md section 3.4


class Client:
    """One server. A context manager; may be used by several threads."""

    def __init__(
        self,
        server: str | None = None,
        *,
        api_key: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`server`: default LOWTIDE_SERVER, else http://127.0.0.1:8000. `api_key`: default
        LOWTIDE_API_KEY. `sleep` is how it waits between looks, in seconds.

        Raises Error for what is no address; nothing is asked yet.
        """
        address = server or os.environ.get("LOWTIDE_SERVER") or DEFAULT_SERVER
        key = api_key or os.environ.get("LOWTIDE_API_KEY") or None
        self._sleep = sleep
        with translated():
            self._client: ServerClient = connect(address, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Batches go on."""
        self._client.__exit__()

    def models(self) -> tuple[str, ...]:
        """The names by which requests may call the server's models."""
        with translated():
            return self._client.models()

    def submit(
        self,
        requests: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
        *,
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        model: str | None = None,
    ) -> BatchInfo:
        """Make a batch of a JSONL file, or of requests as dicts: `{"custom_id": ..., "body": ...}`.

        `model`: run all of them on that one, whatever they name.
        `endpoint`: default what the first request names, else chat completions. The batch is
        checked after this returns: `wait` and `watch` show when it is refused, and why.
        Raises Error.
        """
        with translated(), ExitStack() as stack:
            if isinstance(requests, str | os.PathLike):
                path = readable_input(Path(requests))
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-"))
                path = Path(folder) / "requests.jsonl"
                with path.open("wb") as stream:
                    stream.writelines(json_bytes(request) + b"\n" for request in requests)
            file = self._client.upload(path, guess_purpose(path))
            where = endpoint or guess_endpoint(path)
            answer = self._client.create_batch(
                str(file["id"]),
                where,
                completion_window,
                metadata,
                more={} if model is None else {"model": model},
            )
            return batch_of(answer)

    def get(self, batch: BatchInfo | str) -> BatchInfo:
        """The batch as it is now. Raises Error where the server does not know it."""
        with translated():
            return batch_of(self._client.batch(_id_of(batch)))

    def list(self, limit: int = 20) -> tuple[BatchInfo, ...]:
        """The newest batches, newest first; 100 at most."""
        with translated():
            batches = self._client.batches(min(limit, _LIST_MAX)).get("data", [])
            return tuple(map(batch_of, batches))

    def watch(self, batch: BatchInfo | str) -> Iterator[BatchInfo]:
        """The batch at each change, until it is over; a server that restarts is waited for."""
        with translated():
            shown: BatchInfo | None = None
            for answer, _, outage in polled(self._client, _id_of(batch), sleep=self._sleep):
                latest = batch_of(answer)
                if not outage and latest.raw != (shown.raw if shown is not None else None):
                    shown = latest
                    yield latest

    def wait(self, batch: BatchInfo | str, *, progress: bool = True) -> BatchInfo:
        """The batch when it is over; with a bar meanwhile, in a terminal as in a notebook."""
        with translated():
            bar: BatchBar | NotebookBar = BatchBar(quiet=not progress)
            if progress and in_notebook():
                bar = NotebookBar()
            with bar:
                return batch_of(watch(self._client, _id_of(batch), bar, sleep=self._sleep))

    def results(
        self, batch: BatchInfo | str, *, with_retries: bool = False
    ) -> Iterator[RequestResult]:
        """Results of successes and of failures, each once, as they are committed, until the batch
        is over; of one that is over already, all of them. Not in the order of the requests:
        `custom_id` says which one it is.

        `with_retries`: joined over a batch that is over and its retries, in the order of the
        requests; each is there once, with its success if any of them has it.
        """
        with translated():
            if with_retries:
                yield from map(result_of, self._client.steering.joined_lines(_id_of(batch)))
                return
            seen = {"output": 0, "errors": 0}
            for _, view, outage in polled(self._client, _id_of(batch), sleep=self._sleep):
                if outage:
                    continue
                try:
                    yield from self._growth(view, seen)
                except ServerUnreachable:
                    if view.is_over:
                        raise  # `polled` waits for a server that comes back, but not at the end

    def _growth(self, view: BatchView, seen: dict[str, int]) -> Iterator[RequestResult]:
        """What has been committed since; counts it in `seen`."""
        counts = view.counts
        sides = (
            ("output", view.output_id, counts.completed),
            ("errors", view.error_id, counts.failed),
        )
        for side, file_id, count in sides:
            # Lines that never ran are behind the failed ones at the end, and counted nowhere.
            is_growing = seen[side] < count or (view.is_over and side == "errors")
            if file_id is None or not is_growing:
                continue
            for line in self._client.lines_from(file_id, seen[side]):
                seen[side] += 1
                yield result_of(line)

    def cancel(self, batch: BatchInfo | str) -> BatchInfo:
        """Stop a batch. What has finished by then stays in its results."""
        with translated():
            return batch_of(self._client.cancel_batch(_id_of(batch)))

    def retry(
        self,
        batch: BatchInfo | str,
        *,
        only: RetryOnly = "all_unsuccessful",
        codes: Sequence[str] = (),
        model: str | None = None,
        completion_window: str | None = None,
        priority: int | None = None,
    ) -> BatchInfo:
        """Run the lines of a batch that is over and have no success again, as a new batch.

        Nothing is uploaded. `codes`: only lines with one of these error codes. `model`: run them
        on that one instead. None of the others: as the batch had it. Raises Error, saying why not.
        """
        asked = {
            "only": only,
            "codes": list(codes) or None,
            "model": model,
            "completion_window": completion_window,
            "priority": priority,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        with translated():
            return batch_of(self._client.steering.retry(_id_of(batch), given))

    def pause(self, batch: BatchInfo | str, *, in_flight: InFlight = "finish") -> BatchInfo:
        """Start no further request of a batch until `resume`; its window goes on."""
        with translated():
            return batch_of(self._client.steering.pause(_id_of(batch), in_flight))

    def resume(self, batch: BatchInfo | str) -> BatchInfo:
        """Let a paused batch go on. `reason` says who else holds it."""
        with translated():
            return batch_of(self._client.steering.resume(_id_of(batch)))

    def delete(self, batch: BatchInfo | str) -> None:
        """Delete a batch that is over, with its results. The input file stays."""
        with translated():
            self._client.steering.delete(_id_of(batch))

    def change(
        self,
        batch: BatchInfo | str,
        *,
        priority: int | None = None,
        completion_window: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> BatchInfo:
        """Change a batch that is not over; None leaves a value. `metadata` replaces all of it."""
        asked = {
            "priority": priority,
            "completion_window": completion_window,
            "metadata": metadata,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        with translated():
            return batch_of(self._client.steering.change(_id_of(batch), given))


def _id_of(batch: BatchInfo | str) -> str:
    return batch.id if isinstance(batch, BatchInfo) else check_id(batch, "batch")
