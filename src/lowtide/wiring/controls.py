"""What steers each replica: its controller from the settings, and the readers of its engine."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from lowtide import limits
from lowtide.config import Replica as ReplicaSettings
from lowtide.core.latency_window import LatencyWindow
from lowtide.core.replica import Replica
from lowtide.core.window import WindowController
from lowtide.engines.signals.probe import HttpProber
from lowtide.loops.attempt import Upstream
from lowtide.loops.control import Controlled
from lowtide.service.live_replica import LiveReplica
from lowtide.wiring.engine_clients import opened_client


def window_max(settings: ReplicaSettings) -> int:
    """The operator's bound; where there is none, ours."""
    return limits.WINDOW_MAX if settings.window is None else settings.window


def replica_of(
    url: str,
    models: frozenset[str],
    settings: ReplicaSettings,
    pool: Sequence[ReplicaSettings],
    timeout_s: float = limits.ATTEMPT_TIMEOUT_S,
) -> Replica:
    """A replica with its controller. `pool` are all replicas: whether one of them is relaxed
    decides whether this one is spared long prompts. `timeout_s` is what one attempt may take.
    """
    bound = window_max(settings)
    controller = WindowController(
        bound,
        window_start=limits.WINDOW_START if settings.window is None else bound,
        is_automatic=settings.window is None,
        itl_slo_s=settings.itl_slo_ms / 1000,
        ttft_slo_s=settings.ttft_slo_ms / 1000,
    )
    served = set(settings.models)
    spares_long = not settings.relaxed and any(
        other.relaxed and served <= set(other.models) for other in pool
    )
    learned_max = limits.WINDOW_DEFAULT if settings.window is None else bound
    learned = LatencyWindow(learned_max, timeout_s=timeout_s, width=limits.LEARN_START)
    replica = Replica(
        url, models, bound, controller=controller, learned=learned, spares_long=spares_long
    )
    replica.streams = settings.watch_prompts
    return replica


def open_controls(
    replicas: Sequence[ReplicaSettings],
    upstreams: Sequence[Upstream],
    doors: Sequence[LiveReplica],
    stack: AsyncExitStack,
) -> list[Controlled]:
    """The three sequences name the same replicas in the same order."""
    return [
        _control(settings, upstream, door, stack)
        for settings, upstream, door in zip(replicas, upstreams, doors, strict=True)
    ]


def _control(
    settings: ReplicaSettings, upstream: Upstream, door: LiveReplica, stack: AsyncExitStack
) -> Controlled:
    controller = upstream.replica.controller
    assert controller is not None, "made by replica_of"
    root = opened_client(settings, limits.CONTROL_CONNECTIONS, stack, beside_v1=True)
    prober = HttpProber(
        root,
        upstream.engine,
        kind=settings.engine,
        priority=settings.priority,
        models=sorted(upstream.engine_names.values()),
    )
    patience_s = limits.LIVE_WAIT_SHARE * settings.ttft_slo_ms / 1000
    return Controlled(upstream.replica, controller, prober, door, patience_s)
