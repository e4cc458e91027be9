"""What the demo asks of its server: over HTTP, as any client would."""

import time
from typing import Any, Final, Self

import httpx

WAIT_S: Final = 120.0
"""Seconds until a small batch has to be done, on a busy machine."""

_ENDED: Final = ("completed", "failed", "expired", "cancelled")


class DemoClient:
    """One server, one key; `address` has no /v1."""

    def __init__(self, address: str, key: str = "") -> None:
        self.address = address
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer. Raises httpx.HTTPStatusError for a refusal."""
        answer = self._http.request(method, path, json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def submit(
        self, filename: str, content: bytes, *, name: str = "", window: str = "24h", **more: str
    ) -> str:
        """The id of a new batch over that content; `more` is further metadata."""
        form = {"purpose": "batch"}
        file = self._http.post("/v1/files", data=form, files={"file": (filename, content)})
        file.raise_for_status()
        body = {
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": window,
            "metadata": ({"name": name} if name else {}) | more,
        }
        batch_id: str = self.call("POST", "/v1/batches", body)["id"]
        return batch_id

    def status(self, batch_id: str) -> str:
        """The batch's state now."""
        return str(self.call("GET", f"/v1/batches/{batch_id}")["status"])

    def wait_until(self, batch_id: str, *states: str) -> None:
        """Looks until the batch is in one of those states, or has ended."""
        ends = time.monotonic() + WAIT_S
        while self.status(batch_id) not in (*states, *_ENDED) and time.monotonic() < ends:
            time.sleep(0.3)
