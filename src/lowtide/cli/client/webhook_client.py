"""What `lowtide webhooks` asks of a server. `ServerClient.webhooks` has one."""

from collections.abc import Iterable
from typing import Any

from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.client.objects import JsonObject


class WebhookClient:
    """Calls to one server about webhooks."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def create(self, url: str, events: Iterable[str] | None, name: str) -> JsonObject:
        """`events` None: all."""
        body: JsonObject = {"url": url, "name": name}
        if events is not None:
            body["events"] = list(events)
        return self._http.call("POST", "/webhooks", json=body)

    def all(self) -> JsonObject:
        return self._http.call("GET", "/webhooks")

    def get(self, webhook_id: str) -> JsonObject:
        return self._http.call("GET", f"/webhooks/{webhook_id}")

    def change(self, webhook_id: str, fields: dict[str, Any]) -> JsonObject:
        return self._http.call("PATCH", f"/webhooks/{webhook_id}", json=fields)

    def delete(self, webhook_id: str) -> JsonObject:
        return self._http.call("DELETE", f"/webhooks/{webhook_id}")

    def rotate(self, webhook_id: str, overlap_s: float) -> JsonObject:
        body = {"overlap_seconds": overlap_s}
        return self._http.call("POST", f"/webhooks/{webhook_id}/rotate_secret", json=body)

    def test(self, webhook_id: str, event: str | None) -> JsonObject:
        body = {} if event is None else {"event_type": event}
        return self._http.call("POST", f"/webhooks/{webhook_id}/test", json=body)

    def deliveries(self, webhook_id: str, limit: int, state: str | None) -> JsonObject:
        """The deliveries, newest first."""
        params: dict[str, str | int] = {"limit": limit}
        if state is not None:
            params["state"] = state
        return self._http.call("GET", f"/webhooks/{webhook_id}/deliveries", params=params)

    def replay(self, webhook_id: str, event_id: str | None) -> JsonObject:
        body = {} if event_id is None else {"event_id": event_id}
        return self._http.call("POST", f"/webhooks/{webhook_id}/replay", json=body)
