"""Replicas and workers as `GET /v1/admin/engines`, the console and `lowtide engines` show them."""

from typing import Literal

import msgspec


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How full a replica is. `window`: batch calls that it may have at a time, `bound`: what keeps
    it from being larger. `running`, `waiting` and `kv_used` (0 to 1) are the engine's own figures,
    live calls included; null where it does not tell.
    """

    in_flight: int = 0
    window: int = 0
    bound: str = ""
    running: int | None = None
    waiting: int | None = None
    kv_used: float | None = None


class EngineObject(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, or those models of it that are in one state. `since` in Unix seconds; null while
    ready. `load` null: its worker is of an older version.
    """

    object: Literal["engine"] = "engine"
    name: str = ""
    worker: str = ""
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


class EngineList(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas by name, and all workers that reported within a day."""

    object: Literal["list"] = "list"
    data: list[EngineObject]
    workers: list[WorkerObject]
