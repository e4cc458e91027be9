"""`[[scaler]]`: what starts and stops the engines of some models, and what its settings must be."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, Literal

from lowtide import limits
from lowtide.config.kinds import API_KEYS, KeysByKind, Where, address_problems, name_problems
from lowtide.config.problems import Problem, unless
from lowtide.config.sections import Section
from lowtide.core.replicas.scaler_asks import Bounds

ScalerKind = Literal["kubernetes", "ray", "command"]

_KEYS: Final = KeysByKind(
    needed={
        "kubernetes": ("namespace", "deployment"),
        "ray": ("dashboard", "application", "deployment"),
        "command": ("start",),
    },
    own={
        "kubernetes": API_KEYS | {"namespace", "deployment", "api_url"},
        "ray": API_KEYS | {"dashboard", "application", "deployment"},
        "command": frozenset({"start", "stop", "stop_s", "folder"}),
    },
)


class ScalerSettings(Section, frozen=True, kw_only=True):
    """A place that is told how many replicas of some models to run."""

    COMMAND_KEYS: ClassVar[frozenset[str]] = frozenset({"start", "stop"})

    kind: ScalerKind
    models: tuple[str, ...]
    """Each replica there serves all of them."""
    replicas_min: int = 0
    replicas_max: int | None = None
    """None: `replicas_max` of `[scale]`."""
    dry_run: bool = False
    """Say what would be asked, and ask nothing."""
    namespace: str | None = None
    deployment: str | None = None
    """The one of Kubernetes, or of Ray Serve."""
    api_url: str | None = None
    """The API server of Kubernetes; None: as a pod reaches it."""
    dashboard: str | None = None
    """Address of Ray's dashboard."""
    application: str | None = None
    token_file: Path | None = None
    """Goes with each call to the API of Kubernetes or Ray; read anew for each."""
    api_ca_file: Path | None = None
    start: tuple[str, ...] = ()
    """The command that is one replica, a word each."""
    stop: tuple[str, ...] = ()
    """The command that ends it, where ending its processes is not enough."""
    stop_s: float = limits.SCALER_STOP_S
    folder: Path | None = None
    """Where it is written down what runs; None: in the data directory."""

    @property
    def label(self) -> str:
        """What logs, metrics and pages call it."""
        place = {
            "kubernetes": f"{self.namespace}/{self.deployment}",
            "ray": f"{self.dashboard} {self.application}/{self.deployment}",
            "command": " ".join(self.models[:1]),
        }
        return f"{self.kind} {place[self.kind]}"

    @property
    def place(self) -> tuple[object, ...]:
        """Equal where two settings lead to the same place in the same way."""
        keys = ("kind", "models", *sorted(_KEYS.own[self.kind]))
        return tuple(getattr(self, key) for key in keys)

    def bounds(self, replicas_max: int) -> Bounds:
        """The bounds of its number; `replicas_max`: that of `[scale]`."""
        return Bounds(self.replicas_min, min(self.replicas_max or replicas_max, replicas_max))

    def problems_at(self, place: int, replicas_max: int) -> Iterator[Problem]:
        """What makes no sense in it, as the entry number `place`, from 0; `replicas_max`: that of
        `[scale]`.
        """
        where = ("scaler", place)
        defaults = ScalerSettings(kind=self.kind, models=())
        yield from _KEYS.problems(self.kind, self, defaults, where)
        is_named = bool(self.models) and all(self.models) and "*" not in self.models
        yield from unless(is_named, (*where, "models"), "the ids of the models that it runs")
        most = replicas_max if self.replicas_max is None else self.replicas_max
        words = f"from 1 to {replicas_max}, which is replicas_max of [scale]"
        yield from unless(1 <= most <= replicas_max, (*where, "replicas_max"), words)
        words = f"from 0 to {most}, the most that it may be asked for"
        yield from unless(0 <= self.replicas_min <= most, (*where, "replicas_min"), words)
        yield from self._place_problems(where)

    def _place_problems(self, where: Where) -> Iterator[Problem]:
        yield from address_problems(self, where)
        if self.kind == "kubernetes":
            yield from name_problems(self, where, ("namespace", "deployment"))
        for key in ("start", "stop"):
            words = getattr(self, key)
            if words and not (words[0] and all("\0" not in word for word in words)):
                yield Problem((*where, key), 'must be a program and its words, as ["sh", "-c", ""]')
        yield from unless(
            0 < self.stop_s <= limits.SCALER_STOP_S_MAX,
            (*where, "stop_s"),
            f"above 0, at most {limits.SCALER_STOP_S_MAX:.0f}",
        )


def problems_of_scalers(scalers: tuple[ScalerSettings, ...]) -> Iterator[Problem]:
    """What is wrong with the list as a whole: two that would both run what one is to run."""
    labels = [scaler.label for scaler in scalers]
    for place, scaler in enumerate(scalers):
        before = scalers[:place]
        if scaler.label in labels[:place]:
            words = f"{scaler.label!r} is that of number {labels.index(scaler.label) + 1}"
            yield Problem(("scaler", place), f"{words}: list it once")
        for model in scaler.models:
            others = [n for n, other in enumerate(before, 1) if model in other.models]
            if others:
                words = f"{model} is one of number {others[0]}: it would run as often again"
                yield Problem(("scaler", place, "models"), words)
    if len(scalers) > limits.SCALERS_MAX:
        yield Problem(("scaler",), f"may have {limits.SCALERS_MAX} entries at most")
