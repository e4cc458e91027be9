"""What happened, as the HTTP API shows it: rates and events of batches, and what engines
did. No vendor has these.
"""

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


class EngineSpanObject(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine did in `seconds` from `at` on (Unix seconds). `live_streams`: live streams
    that began, and in how many seconds half of them, and 99 of 100, had their first byte; null
    where none began. `gave_way_s`: for how long its batch window was small because of live calls;
    `taken_back`: batch calls that were aborted for them. `window`, `in_flight`: batch calls allowed
    and running on average; null while no worker looked.
    """

    at: float
    seconds: int
    batch_requests: int
    input_tokens: int
    output_tokens: int
    tokens_per_s: float
    live_streams: int
    live_ttft_p50_s: float | None
    live_ttft_p99_s: float | None
    gave_way_s: float
    taken_back: int
    window: float | None
    in_flight: float | None


class LiveCallsObject(msgspec.Struct, frozen=True, kw_only=True):
    """What live calls met in some time: streams that began, in how many seconds 99 of 100 of them
    had their first byte (null where none began), for how long batch gave way, and batch calls that
    were aborted for them.
    """

    streams: int
    ttft_p99_s: float | None
    gave_way_s: float
    taken_back: int


class EngineHistoryObject(msgspec.Struct, frozen=True, kw_only=True):
    """One engine over the last `hours`, as all processes that call it recorded it. `live`: the sum
    of that time.
    """

    object: Literal["engine.history"] = "engine.history"
    name: str
    hours: float
    live: LiveCallsObject
    data: list[EngineSpanObject]


class PartObject(msgspec.Struct, frozen=True, kw_only=True):
    """`count` requests from `first` on, counted from 0. `state`: the worst that is in it: `failed`,
    `running`, `paused`, `waiting`, `not_run` or `done`. `place`, of parts in the order of the
    input: where the first request without success stands in the file of errors, from 0; where there
    is none, the first one in the file of results.
    """

    first: int
    count: int
    settled: int
    failed: int
    state: str
    place: int | None = None


class BatchParts(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in at most 500 parts; none before it is planned, and once its results are deleted.

    `in_input_order`: `first` is a line of the input, as of a batch that has ended; else requests
    are counted in the order in which they run, which is another one.
    """

    object: Literal["batch.parts"] = "batch.parts"
    batch_id: str
    in_input_order: bool = False
    data: list[PartObject]
