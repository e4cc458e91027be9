"""What the commands ask of a server about a batch that exists: retry it, say why lines failed, read
results joined over its retries.

`ServerClient.steering` has one. Invariant: results appear under their names whole or not at all.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import httpx
import msgspec

from lowtide.cli.client.http_client import HttpClient, ServerRefused
from lowtide.cli.client.objects import JsonObject

_ADMIN = "/admin"


class SplitResults(msgspec.Struct):
    """Joined results, sorted out: lines with success, and lines without."""

    output_lines: int = 0
    error_lines: int = 0


class _Response(msgspec.Struct):
    status_code: int = 0


class _ResultLine(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"null")
    response: _Response | None = None


_decode = msgspec.json.Decoder(_ResultLine).decode


class SteeringClient:
    """Calls to one server about batches that exist."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def retry(self, batch_id: str, asked: Mapping[str, Any]) -> JsonObject:
        """The batch that runs again what had no success. `asked`: the fields of the route."""
        return self._http.call("POST", f"/batches/{batch_id}/retry", json=dict(asked))

    def pause(self, batch_id: str, in_flight: str, *, operator: bool = False) -> JsonObject:
        """Holds the batch; as the operator, the answer has its holds alone."""
        path = f"{_ADMIN if operator else ''}/batches/{batch_id}/pause"
        return self._http.call("POST", path, json={"in_flight": in_flight})

    def resume(self, batch_id: str, *, operator: bool = False) -> JsonObject:
        """Lifts the hold that `pause` made."""
        return self._http.call("POST", f"{_ADMIN if operator else ''}/batches/{batch_id}/resume")

    def change(self, batch_id: str, asked: Mapping[str, Any]) -> JsonObject:
        """Changes what is given: priority, completion_window, metadata."""
        return self._http.call("PATCH", f"/batches/{batch_id}", json=dict(asked))

    def delete(self, batch_id: str) -> JsonObject:
        """Deletes an ended batch with its results."""
        return self._http.call("DELETE", f"/batches/{batch_id}")

    def failures(self, batch_id: str) -> JsonObject:
        """Groups of alike failures so far."""
        return self._http.call("GET", f"/batches/{batch_id}/errors")

    def joined_lines(self, batch_id: str) -> Iterator[bytes]:
        """Result lines over all retries, in input order, each request once. Raises
        httpx.TransportError when the connection breaks."""
        params = {"with_retries": "true"}
        with self._http.streaming(f"/batches/{batch_id}/results", params=params) as answer:
            rest = b""
            for block in answer.iter_bytes():
                *lines, rest = (rest + block).split(b"\n")
                yield from lines

    def split_results(self, batch_id: str, output: BinaryIO, errors: BinaryIO) -> SplitResults:
        """Writes joined results: successes to `output`, the others to `errors`. Both must be able
        to seek: after a broken connection they begin again.
        """
        tried = 0
        while True:
            split = SplitResults()
            try:
                for line in self.joined_lines(batch_id):
                    if is_success(line):
                        output.write(line + b"\n")
                        split.output_lines += 1
                    else:
                        errors.write(line + b"\n")
                        split.error_lines += 1
                return split
            except (httpx.TransportError, ServerRefused) as error:
                self._http.wait_to_retry(tried, error)
                tried += 1
            for stream in (output, errors):
                stream.seek(0)
                stream.truncate()


def is_success(line: bytes) -> bool:
    """Whether a line of joined results has an answer."""
    result = _decode(line)
    has_error = bytes(result.error) != b"null"
    return not has_error and result.response is not None and result.response.status_code < 400
