"""How many replicas a model needs, as `GET /v1/admin/scale` shows it."""

from typing import Literal

import msgspec


class ScaleObject(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `work_seconds`: of one replica, null while its speed is not known. `deadline_at`
    and `wake_at` in Unix seconds: the deadline that decides, and when a replica more is to start;
    null where there is none. `trusted` false: not all was known, and the number is held up.
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


class ScaleList(msgspec.Struct, frozen=True, kw_only=True):
    """All models, by name."""

    object: Literal["list"] = "list"
    data: list[ScaleObject]
