"""Asks engines again and again which models they serve, LoRA adapters included.

Only those replicas are asked whose settings leave it to the engine (`models = ["*"]`). It runs in
every process that calls engines, for live calls as for batches. Invariant: an engine that does not
answer keeps what it listed last; only its own word takes a model away.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.loops.replicas.replica_set import ReplicaMember
from lowtide.ports.engine import ModelList

log = structlog.get_logger(__name__)

OnListed = Callable[[str, tuple[str, ...]], None]
"""Called at each answer with the replica's name and the models that its engine lists."""


class ModelsLoop:
    """Reads the model lists of all engines of a process."""

    name = "models"

    def __init__(self, members: Callable[[], Sequence[ReplicaMember]], on_listed: OnListed) -> None:
        self._members = members
        self._on_listed = on_listed
        self._cut: set[str] = set()

    async def tick(self, now: datetime) -> datetime | None:
        """Polls all engines at once, so that a slow one does not delay the others."""
        asked = [(each, each.model_list) for each in self._members() if each.model_list is not None]
        await asyncio.gather(*(self._ask(each, models) for each, models in asked))
        return now + timedelta(seconds=limits.MODELS_POLL_S)

    async def _ask(self, member: ReplicaMember, models: ModelList) -> None:
        listed = await models.read()
        if listed is None or member.model_list is not models:
            return  # no answer, or of an engine that it had before its settings changed
        name = member.replica.name
        if len(listed) > limits.MODELS_LISTED_MAX and name not in self._cut:
            self._cut.add(name)
            log.warning(
                "replica.too_many_models",
                replica=name,
                models=len(listed),
                served=limits.MODELS_LISTED_MAX,
            )
        self._on_listed(name, listed[: limits.MODELS_LISTED_MAX])
