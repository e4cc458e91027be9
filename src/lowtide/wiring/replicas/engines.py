"""The engines of a process: from settings and what was found to replicas and the catalogue.

`Engines` is asked whenever something that it knows has changed: the settings (at start and when
they are read again), the engines that sources find, the models that an engine lists, the models
that were seen. It works out the whole anew and applies it to the replica set and the catalogue
together. Invariant: what cannot be applied changes neither of them.
"""

import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import structlog

from lowtide import limits
from lowtide.config import ReplicaSettings as ReplicaSettings
from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.core.replicas.open_files import OpenFiles
from lowtide.core.replicas.replica_changes import Changes, ReplicaSpec
from lowtide.core.replicas.served_models import ALL
from lowtide.loops.replicas.replica_set import ReplicaSet
from lowtide.service.catalogue import catalogue_from, resolve
from lowtide.wiring.database import is_single_machine
from lowtide.wiring.open_files import files_for, live_within, tell_bound, window_within
from lowtide.wiring.replicas.found_replicas import check_template, replicas_of
from lowtide.wiring.replicas.open_replica import Calling
from lowtide.wiring.replicas.sharing import shared_name

log = structlog.get_logger(__name__)


class Engines:
    """The engines of a process, applied to its replica set and catalogue. `embedded` is its own
    engine, which no setting takes away.
    """

    def __init__(
        self,
        replicas: ReplicaSet[Calling],
        catalogue: Catalogue,
        embedded: tuple[ReplicaSettings, ModelEntry] | None = None,
    ) -> None:
        self.replicas = replicas
        self.catalogue = catalogue
        self._embedded = embedded
        self._settings = Settings()
        self._list: tuple[ReplicaSettings, ...] = ()
        self._found: Mapping[str, tuple[FoundEngine, ...]] = {}
        self._listed: dict[str, tuple[str, ...]] = {}
        self._seen: dict[str, None] = {}
        self._trusts: dict[str, tuple[int, ...]] = {}

    def configure(self, settings: Settings) -> Changes:
        """Applies new settings: their replicas, sources, models and hours, and the certificates in
        the files that they name. Raises ConfigError, PriceError; then nothing has changed.
        """
        for source in settings.source:
            check_template(source)
        replicas, _ = self._wanted(settings, self._found)
        before, self._trusts = self._trusts, {r.label: certificates_of(r) for r in replicas}
        self._remember(m for s in settings.source for m in (*s.models, *s.names) if m != ALL)
        try:
            changes = self._apply(settings, replicas)
        except BaseException:
            self._trusts = before
            raise
        shares = _shares(len(replicas), comes_and_goes=bool(settings.source))
        tell_bound(replicas, files_for(shares))
        return changes

    def found(self, found: Mapping[str, tuple[FoundEngine, ...]]) -> Mapping[str, str]:
        """See `loops.replicas.sources.FoundEngines`. Where engines of a source cannot be opened, as
        when the file of their key is gone, those that were open and are still there go on, and the
        other sources are taken over all the same.
        """
        try:
            return self._take_over(found)
        except ConfigError:
            pass  # of one source, mostly: which one shows when each is taken over by itself
        taken = {
            label: tuple(each for each in engines if each in self._found.get(label, ()))
            for label, engines in found.items()
        }
        errors: dict[str, str] = {}
        left_out: Mapping[str, str] = {}
        for label in (None, *found):
            wanted = taken if label is None else {**taken, label: found[label]}
            try:
                left_out = self._take_over(wanted)
                taken = wanted
            except ConfigError as error:
                if label is not None:
                    errors[label] = str(error)
        return {**left_out, **errors}

    def listed(self, replica_name: str, models: tuple[str, ...]) -> None:
        """Applies the models that the engine of that replica lists, in its own words."""
        if self._listed.get(replica_name) == models:
            return
        before = self._listed.get(replica_name, ())
        self._listed[replica_name] = models
        self._apply(self._settings, self._list)
        log.info(
            "replica.models",
            replica=replica_name,
            more=_shown(name for name in models if name not in before),
            fewer=_shown(name for name in before if name not in models),
            all=len(models),
        )

    def seen(self, models: Iterable[str]) -> None:
        """Keeps these models known: an engine of this installation has served them."""
        fresh = [model for model in models if model not in self._seen]
        if fresh:
            self._remember(fresh)
            self._apply(self._settings, self._list)

    @property
    def served(self) -> frozenset[str]:
        """The models that some replica serves at present."""
        return frozenset(m for each in self.replicas.members for m in each.replica.models)

    def _wanted(
        self, settings: Settings, found_engines: Mapping[str, tuple[FoundEngine, ...]]
    ) -> tuple[tuple[ReplicaSettings, ...], dict[str, str]]:
        own = [self._embedded[0]] if self._embedded is not None else []
        return replicas_of((*settings.replica, *own), settings.source, found_engines)

    def _take_over(self, found_engines: Mapping[str, tuple[FoundEngine, ...]]) -> Mapping[str, str]:
        """Makes all of these the engines of the sources. Returns what is left out of each, and why.
        Raises ConfigError; then nothing has changed.
        """
        replicas, left_out = self._wanted(self._settings, found_engines)
        before = self._trusts
        self._trusts = {
            r.label: before[r.label] if r.label in before else certificates_of(r) for r in replicas
        }
        try:
            self._apply(self._settings, replicas)
        except ConfigError:
            self._trusts = before
            raise
        self._found = found_engines
        return left_out

    def _apply(self, settings: Settings, replicas: tuple[ReplicaSettings, ...]) -> Changes:
        entries = [self._embedded[1]] if self._embedded is not None else []
        resolved = resolve(settings, replicas, entries, self._listed, self._seen)
        fresh = catalogue_from(settings, resolved)  # raises before anything has changed
        files = files_for(_shares(len(replicas), comes_and_goes=bool(settings.source)))
        specs = [
            ReplicaSpec(replica.label, self._calling(replica, settings, replicas, files), names)
            for replica, names in zip(replicas, resolved.engine_names, strict=True)
        ]
        changes = self.replicas.apply(specs)
        self.catalogue.adopt(fresh)
        self._settings, self._list = settings, replicas
        names = {replica.label for replica in replicas}
        self._listed = {name: models for name, models in self._listed.items() if name in names}
        self._remember(resolved.models)
        return changes

    def _remember(self, models: Iterable[str]) -> None:
        for model in models:
            self._seen.pop(model, None)  # the one served last is forgotten last
            self._seen[model] = None
        while len(self._seen) > limits.MODELS_SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def _calling(
        self,
        replica: ReplicaSettings,
        settings: Settings,
        pool: Sequence[ReplicaSettings],
        files: OpenFiles,
    ) -> Calling:
        served = set(replica.models)
        is_own = self._embedded is not None and replica is self._embedded[0]
        is_shared = not is_own and not is_single_machine(settings)
        return Calling(
            replica,
            timeout_s=replica.attempt_timeout_s or settings.dispatch.attempt_timeout_s,
            window_max=window_within(replica, files),
            live_max=live_within(replica, files),
            spares_long=not replica.relaxed
            and any(each.relaxed and served <= set(each.models) for each in pool),
            shared_as=shared_name(replica) if is_shared else None,
            isolates_cache=_isolates_cache(replica, settings),
            trusts=self._trusts.get(replica.label, ()),
        )


def certificates_of(replica: ReplicaSettings) -> tuple[int, ...]:
    """Tells apart the states of the file that the replica's certificate is checked against; empty
    where none is, or it cannot be read, of which opening it will tell.
    """
    if not replica.url.startswith("https:") or not replica.verify_tls:
        return ()
    place = replica.ca_file or ssl.get_default_verify_paths().cafile
    if place is None:
        return ()
    try:
        status = Path(place).stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _shares(replicas: int, *, comes_and_goes: bool) -> int:
    """The number of parts into which open files are shared out. Where engines come and go it is a
    power of two: else each that comes would change the share, and the connections, of all others.
    """
    return 1 << (replicas - 1).bit_length() if comes_and_goes and replicas else replicas


def _isolates_cache(replica: ReplicaSettings, settings: Settings) -> bool | None:
    """Whether organizations share no prompt cache there; None: where the engine takes a salt."""
    if replica.cache_salt != "auto":
        return replica.cache_salt
    return None if settings.auth.mode == "keys" else False


def _shown(names: Iterable[str]) -> list[str]:
    return sorted(names)[: limits.MODELS_NAMED_IN_ERROR]
