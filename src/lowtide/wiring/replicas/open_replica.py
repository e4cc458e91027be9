"""Opens what it takes to call one replica, by its settings: connections, window, readers.

Called by loops/replicas/replica_set.py through `open_replica`. Batch work, live calls and the
control loop have connections of their own each, so that none of them can take the others'.
"""

import msgspec

from lowtide import limits
from lowtide.config import ReplicaSettings as ReplicaSettings
from lowtide.core.bodies.body_rules import rules_of
from lowtide.core.faults.streamed_answer import PLAIN_FIELDS
from lowtide.core.replicas.replica_changes import ReplicaSpec
from lowtide.core.replicas.served_models import ALL
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.metrics.probe import HttpProber
from lowtide.engines.models.model_list import HttpModelList
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.replicas.replica_set import ReplicaMember
from lowtide.loops.replicas.window_control import ReplicaControl
from lowtide.service.live.live_replica import LiveReplica
from lowtide.wiring.replicas.controls import replica_of
from lowtide.wiring.replicas.engine_clients import engine_client


class Calling(msgspec.Struct, frozen=True):
    """All that decides how a replica is called and steered; equal ones need nothing opened anew.

    `spares_long`: another replica of its models is relaxed, so this one is spared long prompts
    beside live traffic. `window_max` and `live_max`: calls in flight at most, as far as the limit
    on open files allows. `shared_as`: see `ReplicaMember`. `trusts`: which state of a file of
    certificates was read, so that another one is read anew.
    """

    settings: ReplicaSettings
    timeout_s: float
    window_max: int
    live_max: int
    spares_long: bool = False
    shared_as: str | None = None
    isolates_cache: bool | None = False
    trusts: tuple[int, ...] = ()


def open_replica(spec: ReplicaSpec[Calling], replies: ReplyBudget | None = None) -> ReplicaMember:
    """`replies`: what its long replies share with all others. Sends nothing. Raises ConfigError."""
    replies = replies or ReplyBudget()
    calling, settings = spec.settings, spec.settings.settings
    batch = engine_client(settings, calling.window_max + limits.PROBE_CONNECTIONS, replies=replies)
    models = frozenset(spec.engine_names)
    replica = replica_of(
        batch.url,
        models,
        settings,
        calling.window_max,
        calling.timeout_s,
        spares_long=calling.spares_long,
    )
    upstream = Upstream(
        replica=replica,
        engine=batch,
        engine_names=spec.engine_names,
        rules=rules_of(
            drop=frozenset(settings.drop_fields),
            allow=frozenset(settings.allow_fields),
            set_fields=settings.extra_body,
            isolates_cache=calling.isolates_cache,
        ),
        timeout_s=calling.timeout_s,
        streaming=batch if _may_watch(settings) else None,
        replies=replies,
    )
    live_engine = engine_client(settings, calling.live_max, replies=replies)
    live = LiveReplica(
        replica,
        live_engine,
        spec.engine_names,
        upstream.rules,
        upstream.timeout_s,
    )
    root = engine_client(settings, limits.CONTROL_CONNECTIONS, beside_v1=True)
    return ReplicaMember(
        upstream=upstream,
        live=live,
        controlled=_controlled(upstream, live, root, settings),
        connections=(batch, live_engine, root),
        shared_as=calling.shared_as,
        model_list=HttpModelList(batch) if ALL in settings.models else None,
    )


def _controlled(
    upstream: Upstream, live: LiveReplica, root: HttpEngine, settings: ReplicaSettings
) -> ReplicaControl:
    controller = upstream.replica.controller
    assert controller is not None, "made by replica_of"
    prober = HttpProber(
        root,
        upstream.engine,
        kind=settings.engine,
        priority=settings.priority,
        models=lambda: sorted(upstream.engine_names.values()),
    )
    patience_s = limits.LIVE_WAIT_SHARE * settings.ttft_slo_ms / 1000
    return ReplicaControl(upstream.replica, controller, prober, live, patience_s)


def _may_watch(settings: ReplicaSettings) -> bool:
    """Whether answers may be streamed: a field that is set for all requests may make answers that
    no stream tells whole.
    """
    return settings.watch_prompts is not False and settings.extra_body.keys() <= PLAIN_FIELDS
