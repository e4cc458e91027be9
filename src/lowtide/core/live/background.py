"""A background response: one batch of one request, as the Responses API shows it.

Pure. Its id is that of its batch with another prefix, so nothing but the batch is kept of it.
Invariant: a response that is cancelled, failed or completed stays so.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from lowtide.core.batches.batch import Batch, Status
from lowtide.core.live.flex import with_fields

ResponseStatus = Literal["queued", "in_progress", "completed", "failed", "cancelled"]

STATUS_OF: Final[Mapping[Status, ResponseStatus]] = MappingProxyType(
    {
        "validating": "queued",
        "in_progress": "queued",  # in_progress once a worker has it
        "finalizing": "in_progress",  # its result is about to be readable
        "expiring": "failed",
        "cancelling": "cancelled",
        "completed": "completed",
        "failed": "failed",
        "expired": "failed",
        "cancelled": "cancelled",
    }
)
_EXPIRED: Final = "This response could not be made before its completion window ended."
_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": None,
        "temperature": None,
        "text": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": None,
        "user": None,
    }
)
"""What OpenAI's objects repeat of the request."""
_RESPONSE: Final = "resp_"
_BATCH: Final = "batch_"


def response_id(batch_id: str) -> str:
    return _RESPONSE + batch_id.removeprefix(_BATCH)


def batch_id_of(response_id: str) -> str | None:
    """The id of the batch behind a background response; None for what
    cannot be such a response's id.
    """
    if not response_id.startswith(_RESPONSE):
        return None
    return _BATCH + response_id.removeprefix(_RESPONSE)


def status_of(batch: Batch, *, is_leased: bool = False) -> ResponseStatus:
    """The status of a response. `is_leased`: a worker has its request."""
    if batch.status == "in_progress" and is_leased:
        return "in_progress"
    return STATUS_OF[batch.status]


def unfinished(batch: Batch, status: ResponseStatus, fields: Mapping[str, msgspec.Raw]) -> bytes:
    """A response without an answer; `fields` are those of its request, as far as still known."""
    shown = {name: fields.get(name, default) for name, default in _DEFAULTS.items()}
    failure = None
    if status == "failed":
        text = batch.errors[0].message if batch.errors else _EXPIRED
        failure = {"code": "server_error", "message": text}
    return msgspec.json.encode(
        {
            "id": response_id(batch.id),
            "object": "response",
            "created_at": int(batch.created_at.timestamp()),
            "status": status,
            "background": True,
            "error": failure,
            "incomplete_details": None,
            "model": fields.get("model", batch.model),
            "output": [],
            "service_tier": "flex",
            "store": True,
            "usage": None,
            **shown,
        }
    )


def answered(batch: Batch, body: bytes) -> bytes:
    """The engine's own response under Lowtide's id. It knew of no background."""
    return with_fields(
        body, {"id": response_id(batch.id), "background": True, "service_tier": "flex"}
    )


def failed(pending: bytes, code: str, message: str) -> bytes:
    """The response of a request that the engine refused, or gave no usable answer to."""
    error = {"code": code, "message": message}
    return with_fields(pending, {"status": "failed", "error": error})
