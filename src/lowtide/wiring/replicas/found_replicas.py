"""Makes replicas of what sources have found: the template of the source applied to each engine.

Called by wiring/replicas/engines.py for each list that is to be applied. Invariant: no two replicas
have one name or one address. Those of the settings go first, then the sources in their order; what
is left out is told with its reason.
"""

from collections.abc import Iterable, Mapping, Sequence

from lowtide.config import ReplicaSettings, SourceSettings
from lowtide.config.replicas import address_of
from lowtide.config.sources import ConfigError
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.wiring.replicas.engine_clients import engine_client


def replicas_of(
    listed: Sequence[ReplicaSettings],
    sources: Iterable[SourceSettings],
    engines: Mapping[str, Sequence[FoundEngine]],
) -> tuple[tuple[ReplicaSettings, ...], dict[str, str]]:
    """`listed` and the replicas of all `engines`, by the label of their source; and by label why
    engines of it were left out.
    """
    replicas = list(listed)
    owners = {key: replica.label for replica in listed for key in _keys(replica)}
    left_out: dict[str, str] = {}
    for source in sources:
        for engine in engines.get(source.label, ()):
            replica = source.replica_for(engine)
            taken = [owners[key] for key in _keys(replica) if key in owners]
            if taken:
                words = f"{engine.name} is left out: its name or address is that of {taken[0]}"
                left_out.setdefault(source.label, words)
                continue
            owners |= dict.fromkeys(_keys(replica), replica.label)
            replicas.append(replica)
    return tuple(replicas), left_out


def check_template(source: SourceSettings) -> None:
    """Raises ConfigError where no engine of this source could be called, as with a key that is not
    there; so it is told at the start, not when the first engine is found.
    """
    try:
        engine_client(source.replica_for(FoundEngine("engine", "127.0.0.1", 1)), 1)
    except ConfigError as error:
        words = str(error).partition(": ")[2]
        raise ConfigError(f"[[source]] {source.label}: {words}") from None


def _keys(replica: ReplicaSettings) -> tuple[tuple[str, str], ...]:
    return ("name", replica.label), ("address", address_of(replica.url))
