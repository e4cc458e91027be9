"""Tells on /metrics that an engine has the scheduler class, so that Lowtide need not be told.

vLLM loads it as a statistics logger, in the process with the HTTP API, which knows the engine's
settings and not its scheduler. It records nothing else.
"""

from typing import Any

from prometheus_client import Gauge
from vllm.v1.metrics.loggers import StatLoggerBase

from . import __version__
from .requirements import CLASS_PATH, SYNC_PATH, limits_of

INFO = Gauge(
    "lowtide:step_bound_info",
    "Batch work gets what live calls leave of a step, in this engine.",
    ("engine", "version", "tolerance", "itl_bound_ms"),
    multiprocess_mode="mostrecent",
)


class StepBoundInfo(StatLoggerBase):
    """One for each engine; says nothing for an engine with another scheduler."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        chosen = vllm_config.scheduler_config.scheduler_cls
        path = f"{chosen.__module__}.{chosen.__name__}" if isinstance(chosen, type) else chosen
        if path in (CLASS_PATH, SYNC_PATH):
            limits = limits_of(vllm_config)
            bound_ms = "" if limits.bound_s is None else f"{1000 * limits.bound_s:g}"
            INFO.labels(str(engine_index), __version__, f"{limits.tolerance:g}", bound_ms).set(1)

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: vLLM's own loggers do."""

    def log_engine_initialized(self) -> None:
        """Nothing."""
