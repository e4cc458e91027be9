"""The check of `lowtide doctor` on each engine's metrics: every name that Lowtide reads is there.

Engines rename metrics. One that is missing stops nothing: its window is learned from answers, or
one of its bounds is not seen; so it is told by name, with what it is read for. Invariant: one GET,
and nothing that is shown holds a key.
"""

from collections.abc import Sequence
from typing import Final

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.config import ReplicaSettings
from lowtide.config.sources import ConfigError
from lowtide.core.faults.outcome import Reply
from lowtide.core.reporting.shown_url import shown_url
from lowtide.engines.metrics import vllm
from lowtide.engines.metrics.exposition import ReadMetric
from lowtide.engines.metrics.pages import kind_of_page, missing_metrics
from lowtide.wiring.replicas.engine_clients import engine_client

_REMEDY: Final = (
    "Ask the engine for some answer and look again, as some metrics come with the first one. If it"
    " stays, the engine has renamed it: batches run, and a newer Lowtide may know the new name."
)


async def check_metrics(replica: ReplicaSettings) -> Finding | None:
    """The finding on the metrics of a replica; None where there is no page that is read."""
    if replica.engine == "openai":
        return None
    try:
        root = engine_client(replica, 1, beside_v1=True)
    except ConfigError:
        return None  # told of the replica itself
    try:
        answer = await root.get("/metrics", limits.CONNECT_TIMEOUT_S)
    finally:
        await root.aclose()
    if not isinstance(answer, Reply) or answer.status != 200:
        return None  # an engine without metrics is one that Lowtide works with
    kind = kind_of_page(answer.body) if replica.engine == "auto" else replica.engine
    if kind is None:
        return None
    name = f"metrics {shown_url(replica.url)}"
    missing = missing_metrics(answer.body, kind)
    if not missing and kind == "vllm" and (finding := _scheduler(name, answer.body, replica)):
        return finding
    if not missing:
        return Finding(name, "ok", f"tells all that is read of {kind}")
    return Finding(name, "warn", _words(missing), _REMEDY)


def _scheduler(name: str, body: bytes, replica: ReplicaSettings) -> Finding | None:
    """The finding on a vLLM with the scheduler class; None: it has vLLM's own."""
    metrics = vllm.metrics_of(vllm.PAGE.read(body))
    if metrics is None or not metrics.bounds_steps:
        return None
    if replica.priority == "none" or (replica.priority != "auto" and replica.priority <= 0):
        what = f"has the scheduler class, to which calls of priority {replica.priority} are live"
        return Finding(name, "warn", what, "Leave priority out of this [[replica]].")
    what = "gives batch calls what live ones leave of its steps, so nothing is paced"
    return Finding(name, "ok", f"has the scheduler class, which {what}")


def _words(missing: Sequence[ReadMetric]) -> str:
    words = "; ".join(f"{' or '.join(each.names)} ({each.use})" for each in missing)
    silent = any(each.is_key for each in missing)
    ending = ": nothing of its metrics can be used, so its window is learned from answers"
    return f"has no {words}{ending if silent else ''}"
