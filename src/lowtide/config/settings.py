"""The whole tree of settings: how it is read, merged and checked."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from lowtide.config import hours, models, presets
from lowtide.config.conversion import Conversion
from lowtide.config.engine_sources import SourceSettings, problems_of_sources
from lowtide.config.exposure import is_loopback
from lowtide.config.models import ModelSettings
from lowtide.config.problems import Problem, tell
from lowtide.config.replicas import ReplicaSettings, problems_between
from lowtide.config.scalers import ScalerSettings, problems_of_scalers
from lowtide.config.sections import (
    AuthSettings,
    CatalogueSettings,
    DispatchSettings,
    LimitSettings,
    ScaleSettings,
    Section,
    ServerSettings,
    WebhookSettings,
)
from lowtide.config.sources import ARRAYS, ConfigError, Sources, variables

DEFAULT_FILE: Final = "lowtide.toml"
SYSTEM_FILE: Final = Path("/etc/lowtide/lowtide.toml")


class Settings(Section, frozen=True):
    """The whole tree."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    limits: LimitSettings = LimitSettings()
    dispatch: DispatchSettings = DispatchSettings()
    scale: ScaleSettings = ScaleSettings()
    webhooks: WebhookSettings = WebhookSettings()
    replica: tuple[ReplicaSettings, ...] = ()
    source: tuple[SourceSettings, ...] = ()
    scaler: tuple[ScalerSettings, ...] = ()
    model: tuple[ModelSettings, ...] = ()

    def problems(self) -> Iterator[Problem]:
        """What makes no sense in any section, and between them."""
        for section in _single_sections(self):
            yield from section.problems()
        if self.auth.mode == "open" and not is_loopback(self.server.host):
            yield Problem(
                ("server", "host"),
                f"{self.server.host!r} is a public address and auth.mode is 'open': anyone could"
                " run batches. Use host = '127.0.0.1', or auth.mode = 'keys', which is also what a"
                " container with a published port needs: make a key with `lowtide keys create`.",
            )
        yield from hours.problems_of(self.dispatch, self.model)
        for place, replica in enumerate(self.replica):
            yield from replica.problems_at(place)
        yield from problems_between(self.replica)
        for place, source in enumerate(self.source):
            yield from source.problems_at(place)
        yield from problems_of_sources(self.source)
        for place, scaler in enumerate(self.scaler):
            yield from scaler.problems_at(place, self.scale.replicas_max)
        yield from problems_of_scalers(self.scaler)
        yield from models.problems_of(self.model)


def _single_sections(settings: Settings) -> Iterator[Section]:
    """The sections of which there is one each."""
    for name in settings.__struct_fields__:
        if isinstance(section := getattr(settings, name), Section):
            yield section


def settings_file(named: Path | None, *, system: bool = False) -> Path | None:
    """The file to read: the one that was named, else `./lowtide.toml` if there is one, else, with
    `system`, /etc/lowtide/lowtide.toml if there is one. Raises ConfigError."""
    if named is not None:
        return named
    places = (Path(DEFAULT_FILE), SYSTEM_FILE) if system else (Path(DEFAULT_FILE),)
    for place in places:
        try:
            if place.is_file():
                return place
        except OSError as error:
            raise ConfigError(f"{place}: cannot be read: {error.strerror}") from None
    return None


def load(
    file: Path | None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Reads, merges and checks the settings.

    `file` None means `./lowtide.toml` if there is one. `flags` maps dotted keys (`server.port`) to
    values; None values are passed over. Raises ConfigError, with every mistake that was found.
    """
    environ = os.environ if environ is None else environ
    sources = Sources(settings_file(file))
    for variable, path, text in variables(environ):
        sources.put(path, text, variable)
    for dotted, value in (flags or {}).items():
        if value is not None:
            path = dotted.split(".")
            sources.put(path, value, f"--{path[-1].replace('_', '-')}")
    presets.fill_in(sources.tree)
    conversion = Conversion(_known_sections())
    settings, places = _settings(sources.tree, conversion)
    problems = [*conversion.problems, *_moved(settings.problems(), places)]
    problems += _overridden(sources)
    tell(problems, sources)
    return msgspec.structs.replace(settings, model=_with_catalogue(settings))


def check(settings: Settings) -> None:
    """Refuses values that have the right type and make no sense. Raises ConfigError."""
    tell(list(settings.problems()), None)


def _settings(
    tree: dict[str, Any], conversion: Conversion
) -> tuple[Settings, Mapping[str, tuple[int, ...]]]:
    """What can be made of the tree, and the place in it of each entry of a list."""
    given: dict[str, Any] = {}
    places: dict[str, tuple[int, ...]] = {}
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for name, value in tree.items():
        if name not in kinds:
            conversion.unknown_section(name, kinds)
        elif name in ARRAYS:
            entries = conversion.table(get_args(kinds[name])[0], value, name)
            given[name] = tuple(entry for _, entry in entries)
            places[name] = tuple(place for place, _ in entries)
        else:
            section = conversion.section(kinds[name], value, (name,))
            if section is not None:
                given[name] = section
    return Settings(**given), places


def _overridden(sources: Sources) -> Iterator[Problem]:
    """Values of the wrong type that do not count today: they would when the stronger one goes."""
    for path, value, name in sources.overridden:
        conversion = Conversion(_known_sections())
        tree = value
        for step in reversed(path):
            tree = {step: tree}
        _settings(tree, conversion)
        for problem in conversion.problems:
            place = name or sources.line_of(problem.path)
            yield Problem(problem.path, problem.words, place)


def _moved(problems: Iterator[Problem], places: Mapping[str, tuple[int, ...]]) -> Iterator[Problem]:
    """Problems of entries, told by where these stand among all that were written."""
    for problem in problems:
        name, *below = problem.path
        if below and isinstance(below[0], int) and isinstance(name, str):
            path = (name, places[name][below[0]], *below[1:])
            problem = Problem(path, problem.words)
        yield problem


def _known_sections() -> dict[str, tuple[str, ...]]:
    return {
        field.name: (get_args(field.type) or (field.type,))[0].__struct_fields__
        for field in msgspec.structs.fields(Settings)
    }


def _with_catalogue(settings: Settings) -> tuple[ModelSettings, ...]:
    """The models of the settings, then those of the catalogue file whose names they leave free."""
    if settings.catalogue.file is None:
        return settings.model
    sources = Sources(models.catalogue_place(settings.catalogue.file), "catalogue.file")
    conversion = Conversion({"model": ModelSettings.__struct_fields__})
    for name in sources.tree:
        if name != "model":
            conversion.unknown_section(name, ("model",))
    entries = conversion.table(ModelSettings, sources.tree.get("model", []), "model")
    merged = [model for _, model in entries]
    problems = [*conversion.problems, *models.problems_of(merged)]
    problems += hours.problems_of(settings.dispatch, merged)
    tell(problems, sources)
    taken = {known for model in settings.model for known in (model.id, *model.aliases)}
    return (*settings.model, *(model for model in merged if model.id not in taken))
