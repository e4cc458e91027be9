"""What happened, as the HTTP API shows it: rates and events of batches. No vendor has these."""

from typing import Literal

import msgspec


class RateObject(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch got done in `seconds` from `at` on (Unix seconds), and the rates of that."""

    at: float
    seconds: float
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    requests_per_s: float
    failed_per_s: float
    tokens_per_s: float


class BatchHistoryObject(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of a batch since its requests began: at most 300 stretches of time of one length, which
    doubles as the batch gets older. The last one may be shorter."""

    object: Literal["batch.history"] = "batch.history"
    batch_id: str
    data: list[RateObject]


class BatchEventObject(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a batch. `actor`: the id of the key that asked for it, or `user`,
    `operator`, `server`. `at` in Unix seconds."""

    object: Literal["batch.event"] = "batch.event"
    at: float = 0.0
    kind: str = ""
    actor: str = ""
    detail: str | None = None


class BatchEventList(msgspec.Struct, frozen=True, kw_only=True):
    """The first first. Of what is not in the batch's own record, the newest 200 are kept."""

    object: Literal["list"] = "list"
    data: list[BatchEventObject]
