"""Replicas and workers as `GET /v1/admin/engines`, the console and `lowtide engines` show them."""

from typing import Literal

import msgspec

from lowtide.api.objects.scale import ScalerObject


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How full a replica is. `window`: batch calls that it may have at a time, `bound`: what keeps
    it from being larger. `running`, `waiting` and `kv_used` (0 to 1) are the engine's own figures,
    live calls included; null where it does not tell. `bounds_steps`: it has Lowtide's scheduler
    class, which gives batch calls what live ones leave of its steps, so nothing is paced here.
    `sends_parts`: its steps are too long for live calls, so long batch prompts go there in parts.
    `live_target_s`: how soon a live call should begin there (`ttft_slo_ms` in the settings); null
    where no target is set.
    """

    in_flight: int = 0
    window: int = 0
    bound: str = ""
    running: int | None = None
    waiting: int | None = None
    kv_used: float | None = None
    bounds_steps: bool = False
    sends_parts: bool = False
    live_target_s: float | None = None


class EngineObject(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, or those models of it that are in one state. `source`: where it was found; null
    for one that the settings name. `since` in Unix seconds; null while ready. `load` null: its
    worker is of an older version.
    """

    object: Literal["engine"] = "engine"
    name: str = ""
    worker: str = ""
    source: str | None = None
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    condition: str = ""
    reason: str | None = None
    remedy: str | None = None
    since: int | None = None
    load: EngineLoad | None = None


class WorkerObject(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. `is_gone`: it has not reported for so long that it is taken to be dead."""

    id: str = ""
    seen_at: int = 0
    is_gone: bool = False


class SourceObject(msgspec.Struct, frozen=True, kw_only=True):
    """A place where engines are found, as these workers see it. `engines`: the names that it told
    last. `stale_since` in Unix seconds: it has not answered since, and its last list goes on; null
    while it answers. `trouble`: why, or what of the list cannot be used.
    """

    object: Literal["engine_source"] = "engine_source"
    source: str = ""
    engines: tuple[str, ...] = ()
    stale_since: int | None = None
    trouble: str | None = None
    workers: tuple[str, ...] = ()


class EngineTotals(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas together. `ready`: those of `engines` that take batch calls; `in_flight` of
    `window` batch calls, `free` of them in replicas that take more; `waiting_requests` of batches
    that run. Rates of batches, and live streams, are of about the last minute: in how many seconds
    99 of 100 streams had their first byte (null where none began), and for how long batch gave way.
    """

    engines: int
    ready: int
    in_flight: int
    window: int
    free: int
    waiting_requests: int
    requests_per_s: float
    tokens_per_s: float
    live_streams: int
    live_ttft_p99_s: float | None
    gave_way_s: float


class EngineList(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas by name, all workers that reported within a day, where engines are found, and
    what starts and stops them. `totals` null: told by a command that asks no server.
    """

    object: Literal["list"] = "list"
    data: list[EngineObject]
    workers: list[WorkerObject]
    sources: list[SourceObject] = []
    scalers: list[ScalerObject] = []
    totals: EngineTotals | None = None
