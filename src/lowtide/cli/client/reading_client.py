"""What the commands read of a batch beside the batch itself: its lines, its rates, its events.

`ServerClient.reading` has one.
"""

from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.client.objects import JsonObject


class ReadingClient:
    """Calls to one server that change nothing."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def costs(self, batch_id: str) -> JsonObject:
        """Requests, tokens and dollars of the batch so far, by model."""
        return self._http.call("GET", f"/batches/{batch_id}/costs")

    def history(self, batch_id: str) -> JsonObject:
        """Rates since the batch's requests began."""
        return self._http.call("GET", f"/batches/{batch_id}/history")

    def events(self, batch_id: str) -> JsonObject:
        """What happened to the batch."""
        return self._http.call("GET", f"/batches/{batch_id}/events")

    def lines(self, batch_id: str, kind: str, first: int, *, limit: int) -> JsonObject:
        """Lines of results (`output`) or failures (`errors`) from a place on, counted from 0."""
        params: dict[str, str | int] = {"kind": kind, "first": first, "limit": limit}
        return self._http.call("GET", f"/batches/{batch_id}/lines", params=params)
