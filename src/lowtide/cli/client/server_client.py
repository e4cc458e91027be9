"""What the commands ask of a server: files, batches, uploads and downloads, over its OpenAI API.

Used by every command that names a server, and by `run` for the one it starts itself. Invariants:
a file goes up and comes down in bounded memory; a download appears under its name whole or not at
all.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Self

import httpx
import msgspec

from lowtide import limits
from lowtide.cli.client.http_client import HttpClient, ServerRefused
from lowtide.cli.client.multipart import FileForm
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.client.reading_client import ReadingClient
from lowtide.cli.client.steering_client import SteeringClient
from lowtide.cli.client.upload_parts import upload_in_parts
from lowtide.cli.client.webhook_client import WebhookClient
from lowtide.cli.client.whole_file import whole_file
from lowtide.cli.terminal.command_errors import CommandError

Advance = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None when unknown)."""


def _ignore(_done: int, _total: int | None) -> None:
    """Shows no progress."""


class Copied(msgspec.Struct, frozen=True):
    """The result of a download."""

    bytes: int
    lines: int


class ServerClient:
    """One server. A context manager; closes its connections."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self.steering: Final = SteeringClient(http)
        self.reading: Final = ReadingClient(http)
        """Calls about a batch that exists."""
        self.webhooks: Final = WebhookClient(http)

    @property
    def server(self) -> str:
        return self._http.server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # ---- files ----

    def upload(self, path: Path, purpose: str, advance: Advance = _ignore) -> JsonObject:
        """Sends a file; a large one in parts, of which only the broken one is sent again.

        `advance` may go back when something is repeated.
        """
        size = path.stat().st_size
        if limits.CLIENT_PARTS_ABOVE_BYTES < size <= limits.UPLOAD_BYTES_MAX:
            file = upload_in_parts(self._http, path, purpose, advance)
            if file is not None:
                return file
        form = FileForm(path, {"purpose": purpose})
        return self._http.call(
            "POST", "/files", content=lambda: form.blocks(advance), headers=form.headers
        )

    def file(self, file_id: str) -> JsonObject:
        return self._http.call("GET", f"/files/{file_id}")

    def files(self, limit: int, purpose: str | None = None) -> JsonObject:
        params: dict[str, str | int] = {"limit": limit}
        if purpose:
            params["purpose"] = purpose
        return self._http.call("GET", "/files", params=params)

    def delete_file(self, file_id: str) -> JsonObject:
        return self._http.call("DELETE", f"/files/{file_id}")

    def download(self, file_id: str, target: Path, advance: Advance = _ignore) -> Copied:
        """Fetches a file's content to `target`. Goes on where a broken connection left off."""
        with whole_file(target) as stream:
            return self.copy(file_id, stream, advance)

    def copy(self, file_id: str, stream: BinaryIO, advance: Advance = _ignore) -> Copied:
        """Writes a file's content to `stream`. Resumes by Range after a break."""
        done = lines = tried = 0
        while True:
            before = done
            try:
                for block, total in self._blocks_from(file_id, done):
                    stream.write(block)
                    done += len(block)
                    lines += block.count(b"\n")
                    advance(done, total)
                return Copied(done, lines)
            except (httpx.TransportError, ServerRefused) as error:
                tried = 0 if done > before else tried
                self._http.wait_to_retry(tried, error)
                tried += 1

    def _blocks_from(self, file_id: str, offset: int) -> Iterator[tuple[bytes, int | None]]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._http.streaming(f"/files/{file_id}/content", headers=headers) as answer:
            length = answer.headers.get("content-length", "")
            resumes = answer.status_code == 206
            total = int(length) + (offset if resumes else 0) if length.isdigit() else None
            skip = 0 if resumes else offset  # a server without Range sends it all again
            for block in answer.iter_bytes():
                fresh = block[skip:]
                skip = max(0, skip - len(block))
                if fresh:
                    yield fresh, total

    def copy_growth(self, file_id: str, offset: int, stream: BinaryIO) -> int:
        """Writes the result lines after the first `offset`, as far as they are committed.

        Returns the count of lines up to the end of what was written. Raises httpx.TransportError
        when the connection breaks: what was written then may end inside a line.
        """
        lines = offset
        params = {"offset": offset}
        with self._http.streaming(f"/files/{file_id}/content", params=params) as answer:
            for block in answer.iter_bytes():
                stream.write(block)
                lines += block.count(b"\n")
            last = answer.headers.get("x-last-line", "")
        return int(last) if last.isdigit() else lines

    def lines_from(self, file_id: str, offset: int) -> Iterator[bytes]:
        """The result lines after the first `offset`, whole, as far as they are committed; a broken
        connection is gone on with. The caller counts them, and asks again with that for more.
        """
        tried, seen = 0, offset
        while True:
            before = seen
            try:
                params = {"offset": seen}
                with self._http.streaming(f"/files/{file_id}/content", params=params) as answer:
                    for line in whole_lines(answer.iter_bytes()):
                        seen += 1
                        yield line
                return
            except (httpx.TransportError, ServerRefused) as error:
                tried = 0 if seen > before else tried
                self._http.wait_to_retry(tried, error)
                tried += 1

    # ---- models and batches ----

    def limits(self) -> JsonObject:
        """Each limit of the key's organization."""
        return self._http.call("GET", "/limits")

    def models(self) -> tuple[str, ...]:
        """The names by which requests may call the server's models."""
        listed = self._http.call("GET", "/models").get("data", [])
        return tuple(str(each["id"]) for each in listed)

    def create_batch(
        self,
        file_id: str,
        endpoint: str,
        window: str | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        dry_run: bool = False,
        more: Mapping[str, object] | None = None,
    ) -> JsonObject:
        """Creates a batch; with `dry_run` returns its estimate, and nothing is created."""
        body: JsonObject = {"input_file_id": file_id, "endpoint": endpoint}
        body["completion_window"] = window or "24h"
        if metadata:
            body["metadata"] = dict(metadata)
        if dry_run:
            body["dry_run"] = True
        body |= more or {}
        return self._http.call("POST", "/batches", json=body)

    def batch(self, batch_id: str) -> JsonObject:
        return self._http.call("GET", f"/batches/{batch_id}")

    def batches(self, limit: int, which: Mapping[str, str | int] | None = None) -> JsonObject:
        """The batches, newest first; `which`: further parameters of the route."""
        return self._http.call("GET", "/batches", params={"limit": limit, **(which or {})})

    def cancel_batch(self, batch_id: str) -> JsonObject:
        return self._http.call("POST", f"/batches/{batch_id}/cancel")


def whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends; what a broken stream leaves of one is dropped."""
    rest = bytearray()
    for block in blocks:
        first, *others = block.split(b"\n")
        rest += first
        for line in others:
            yield bytes(rest)
            rest = bytearray(line)


def check_id(text: str, kind: str) -> str:
    """An id as given on the command line; refuses what can be none. Raises CommandError."""
    if not text or not all(letter.isalnum() or letter in "-_" for letter in text):
        raise CommandError(f"{text!r} is not the id of a {kind}.")
    return text
