"""How many replicas a model needs, as `GET /v1/admin/scale` shows it."""

from typing import Literal

import msgspec


class ScalerObject(msgspec.Struct, frozen=True, kw_only=True):
    """What starts and stops replicas (`[[scaler]]`), as the worker sees it that asks it. `target`:
    the replicas that the place was told to have, `running`: those that it has; null while it was
    not read. `asked` at `asked_at` for `reason`: the last number that was asked for, null while
    none was; in a dry run, that would have been. `trouble` since `trouble_since`: what fails.
    Instants in Unix seconds.
    """

    object: Literal["scaler"] = "scaler"
    scaler: str = ""
    models: tuple[str, ...] = ()
    dry_run: bool = False
    target: int | None = None
    running: int | None = None
    asked: int | None = None
    asked_at: int | None = None
    reason: str | None = None
    trouble: str | None = None
    trouble_since: int | None = None


class ScaleObject(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `work_seconds`: of one replica, null while its speed is not known. `deadline_at`
    and `wake_at` in Unix seconds: the deadline that decides, and when a replica more is to start;
    null where there is none. `trusted` false: not all was known, and the number is held up.
    `scaler`: null where the settings have none for it.
    """

    object: Literal["scale"] = "scale"
    model: str = ""
    replicas_wanted: int = 0
    replicas_present: int = 0
    work_seconds: float | None = None
    deadline_at: int | None = None
    wake_at: int | None = None
    in_flight: int = 0
    trusted: bool = True
    reason: str = ""
    scaler: ScalerObject | None = None


class ScaleList(msgspec.Struct, frozen=True, kw_only=True):
    """All models, by name."""

    object: Literal["list"] = "list"
    data: list[ScaleObject]
