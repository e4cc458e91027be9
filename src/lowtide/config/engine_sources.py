"""`[[source]]`: a place where engines are found, and what its settings must be."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, Literal

from lowtide import limits
from lowtide.config.engine_settings import EngineSettings
from lowtide.config.problems import Problem, unless
from lowtide.config.replicas import ReplicaSettings
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.core.replicas.served_models import ALL

SourceKind = Literal["file"]

_NEEDED: Final = {"file": ("path",)}
"""The keys that a source of that kind must have."""

_OWN: Final = {"file": frozenset({"path"})}
"""All keys that only a source of that kind may have."""


class SourceSettings(EngineSettings, frozen=True, kw_only=True):
    """A place where engines are found. Every key of `[[replica]]` but url and name may stand here,
    too, and then holds for each engine that is found.
    """

    SECRET_KEYS: ClassVar[frozenset[str]] = EngineSettings.SECRET_KEYS

    kind: SourceKind
    scheme: Literal["http", "https"] = "http"
    base_path: str = "/v1"
    path: Path | None = None

    @property
    def label(self) -> str:
        """What logs, metrics and pages call it."""
        return f"{self.kind} {self.path}"

    @property
    def place(self) -> tuple[object, ...]:
        """Equal where two settings lead to the same place, whatever its engines are given."""
        return tuple(getattr(self, key) for key in ("kind", *sorted(_OWN[self.kind])))

    def replica_for(self, engine: FoundEngine) -> ReplicaSettings:
        """The replica that stands for an engine of this source.

        Models: those of the settings, else what the source says and whatever the engine lists.
        """
        host = f"[{engine.host}]" if ":" in engine.host else engine.host
        base_path = self.base_path.strip("/")
        template = {key: getattr(self, key) for key in EngineSettings.__struct_fields__}
        if not (self.models or self.names):
            template["models"] = tuple(dict.fromkeys((*engine.models, ALL)))
        url = f"{self.scheme}://{host}:{engine.port}{engine.path.rstrip('/')}/{base_path}"
        return ReplicaSettings(url=url.rstrip("/"), name=engine.name, **template)

    def problems_at(self, place: int) -> Iterator[Problem]:
        """What makes no sense in it, as the entry number `place`, from 0."""
        where = ("source", place)
        for key in _NEEDED[self.kind]:
            yield from unless(
                bool(getattr(self, key)), (*where, key), f'given, for kind = "{self.kind}"'
            )
        foreign = frozenset[str]().union(*_OWN.values()) - _OWN[self.kind]
        defaults = SourceSettings(kind=self.kind)
        for key in sorted(foreign):
            if getattr(self, key) != getattr(defaults, key):
                yield Problem((*where, key), f'goes not with kind = "{self.kind}"')
        if self.ca_file is not None and self.scheme == "http":
            words = 'with scheme = "http" there is no certificate to check: use "https"'
            yield Problem((*where, "ca_file"), words)
        yield from unless(all(self.models), (*where, "models"), "ids of models, or left out")
        yield from self.engine_problems(where)


def problems_of_sources(sources: tuple[SourceSettings, ...]) -> Iterator[Problem]:
    """What is wrong with the list as a whole."""
    labels = [source.label for source in sources]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            words = f"{label!r} is that of number {labels.index(label) + 1}: list it once"
            yield Problem(("source", place), words)
    if len(sources) > limits.SOURCES_MAX:
        yield Problem(("source",), f"may have {limits.SOURCES_MAX} entries at most")
