"""`[[scaler]]`: what starts and stops the engines of some models, and what its settings must be."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, Literal

from lowtide import limits
from lowtide.config.engine_sources import KUBERNETES_NAME
from lowtide.config.problems import Problem, unless
from lowtide.config.sections import Section, is_http_url
from lowtide.core.replicas.scaler_asks import Bounds

ScalerKind = Literal["kubernetes", "ray", "command"]

_NEEDED: Final = {
    "kubernetes": ("namespace", "deployment"),
    "ray": ("dashboard", "application", "deployment"),
    "command": ("start",),
}
"""The keys that a scaler of that kind must have."""

_API: Final = frozenset({"token_file", "api_ca_file"})
_OWN: Final = {
    "kubernetes": _API | {"namespace", "deployment", "api_url"},
    "ray": _API | {"dashboard", "application", "deployment"},
    "command": frozenset({"start", "stop", "stop_s", "folder"}),
}
"""All keys that a scaler of that kind may have and others may not."""


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
        keys = ("kind", "models", *sorted(_OWN[self.kind]))
        return tuple(getattr(self, key) for key in keys)

    def bounds(self, replicas_max: int) -> Bounds:
        """The bounds of its number; `replicas_max`: that of `[scale]`."""
        return Bounds(self.replicas_min, min(self.replicas_max or replicas_max, replicas_max))

    def problems_at(self, place: int, replicas_max: int) -> Iterator[Problem]:
        """What makes no sense in it, as the entry number `place`, from 0; `replicas_max`: that of
        `[scale]`.
        """
        where = ("scaler", place)
        for key in _NEEDED[self.kind]:
            words = f'given, for kind = "{self.kind}"'
            yield from unless(bool(getattr(self, key)), (*where, key), words)
        foreign = frozenset[str]().union(*_OWN.values()) - _OWN[self.kind]
        defaults = ScalerSettings(kind=self.kind, models=())
        for key in sorted(foreign):
            if getattr(self, key) != getattr(defaults, key):
                yield Problem((*where, key), f'goes not with kind = "{self.kind}"')
        is_named = bool(self.models) and all(self.models) and "*" not in self.models
        yield from unless(is_named, (*where, "models"), "the ids of the models that it runs")
        most = replicas_max if self.replicas_max is None else self.replicas_max
        words = f"from 1 to {replicas_max}, which is replicas_max of [scale]"
        yield from unless(1 <= most <= replicas_max, (*where, "replicas_max"), words)
        words = f"from 0 to {most}, the most that it may be asked for"
        yield from unless(0 <= self.replicas_min <= most, (*where, "replicas_min"), words)
        yield from self._place_problems(where)

    def _place_problems(self, where: tuple[str, int]) -> Iterator[Problem]:
        for key in ("api_url", "dashboard"):
            url = getattr(self, key)
            yield from unless(
                url is None or (is_http_url(url) and "@" not in url),
                (*where, key),
                "an address that begins with http:// or https:// and names a host, without a user",
            )
        for key in ("namespace", "deployment") if self.kind == "kubernetes" else ():
            name = getattr(self, key)
            yield from unless(
                name is None or KUBERNETES_NAME.fullmatch(name) is not None,
                (*where, key),
                "a name of Kubernetes: small letters, digits and hyphens",
            )
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
