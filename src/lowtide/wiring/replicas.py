"""From `[[replica]]`, `[[model]]` and `--model` to engines that can be called.

The catalogue of what may be asked for, one upstream per replica for batch work, and the same
replicas, by connections of their own, for the interactive door.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lowtide import limits
from lowtide.config import Replica as ReplicaSettings
from lowtide.config import Settings, hours_by_model
from lowtide.core.catalogue import Catalogue, ModelEntry
from lowtide.core.streamed_answer import PLAIN_FIELDS
from lowtide.engines.embedded import EmbeddedEngine
from lowtide.engines.model_source import resolve_model
from lowtide.loops.attempt import Upstream
from lowtide.service.live_replica import LiveReplica
from lowtide.wiring.controls import replica_of, window_max
from lowtide.wiring.engine_clients import opened_client


def _cache_dir(data_dir: Path) -> Path:
    """Where the demo model is written once for all data directories; in this one for a user that
    has no home folder, as a container's often has none."""
    try:
        home = Path.home()
    except RuntimeError:
        return data_dir / "cache"
    usable = home.is_dir() and os.access(home, os.W_OK | os.X_OK)
    return home / ".cache" / "lowtide" if usable else data_dir / "cache"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model to serve from this process's own engine. None stands for a good choice.

    `spec` is `demo`, a path to a GGUF file, or a hub id. `aliases` are further names that requests
    may call it by.
    """

    spec: str
    slots: int | None = None
    threads: int | None = None
    aliases: tuple[str, ...] = ()


async def start_embedded(
    embedded: EmbeddedModel,
    data_dir: Path,
    stack: AsyncExitStack,
    on_progress: Callable[[str], None],
) -> tuple[ReplicaSettings, ModelEntry]:
    """The embedded engine as a replica like any other, and its catalogue entry."""
    on_progress(f"getting the model {embedded.spec}")
    model = await asyncio.to_thread(resolve_model, embedded.spec, _cache_dir(data_dir))
    on_progress(f"loading {model.path.name}")
    slots = embedded.slots or limits.EMBEDDED_SLOTS
    engine = EmbeddedEngine(
        model.path,
        model_id=model.model_id,
        log_path=data_dir / "logs" / "engine.log",
        slots=slots,
        threads=embedded.threads,
        context=model.context_tokens,
    )
    url = await engine.start()
    stack.push_async_callback(engine.aclose)
    replica = ReplicaSettings(url=url, models=(model.model_id,), window=slots, engine="llamacpp")
    return replica, ModelEntry(id=model.model_id, aliases=embedded.aliases)


def catalogue_of(
    settings: Settings, replicas: Sequence[ReplicaSettings], entries: Sequence[ModelEntry]
) -> Catalogue:
    """The configured models, the embedded one, and whatever else the replicas serve."""
    known = [
        *entries,
        *(ModelEntry(**msgspec.structs.asdict(model)) for model in settings.model),
    ]
    names = {name: entry.id for entry in known for name in (entry.id, *entry.aliases)}
    served = dict.fromkeys(name for replica in replicas for name in replica.models)
    known += [ModelEntry(id=name) for name in served if name not in names]
    hours = hours_by_model(settings, [entry.id for entry in known])
    if settings.catalogue.unserved == "wait":
        return Catalogue(known, hours=hours)
    return Catalogue(known, {names.get(name, name) for name in served}, hours)


async def open_upstreams(
    settings: Settings,
    replicas: Sequence[ReplicaSettings],
    catalogue: Catalogue,
    stack: AsyncExitStack,
) -> list[Upstream]:
    upstreams: list[Upstream] = []
    for replica in replicas:
        connections_max = window_max(replica) + limits.PROBE_CONNECTIONS
        engine = opened_client(replica, connections_max, stack)
        models = frozenset(catalogue.names[name] for name in replica.models)
        timeout_s = replica.attempt_timeout_s or settings.dispatch.attempt_timeout_s
        upstreams.append(
            Upstream(
                replica=replica_of(engine.url, models, replica, replicas, timeout_s),
                engine=engine,
                engine_names={model: catalogue.engine_name(model) for model in models},
                drop_fields=frozenset(replica.drop_fields),
                set_fields=replica.extra_body,
                timeout_s=timeout_s,
                streaming=engine if _may_watch(replica) else None,
            )
        )
    return upstreams


def _may_watch(replica: ReplicaSettings) -> bool:
    """A field that is set for all requests may make answers that no stream tells whole."""
    return replica.watch_prompts and replica.extra_body.keys() <= PLAIN_FIELDS


def open_doors(
    replicas: Sequence[ReplicaSettings], upstreams: Sequence[Upstream], stack: AsyncExitStack
) -> list[LiveReplica]:
    """The same replicas for the interactive door, by connections of its own."""
    return [
        LiveReplica(
            upstream.replica,
            opened_client(replica, _live_connections(replica), stack),
            upstream.engine_names,
            upstream.drop_fields,
            upstream.set_fields,
            upstream.timeout_s,
        )
        for replica, upstream in zip(replicas, upstreams, strict=True)
    ]


def _live_connections(replica: ReplicaSettings) -> int:
    if replica.engine == "llamacpp":
        return limits.LIVE_CONNECTIONS_LLAMACPP
    return limits.LIVE_CONNECTIONS_MAX
