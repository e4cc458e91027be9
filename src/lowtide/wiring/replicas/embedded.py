"""`--model`: an engine of this process's own, as a replica like any other.

Imported by `application` where a model is asked for: most servers have their engines elsewhere.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from lowtide import limits
from lowtide.config import ReplicaSettings as ReplicaSettings
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.engines.embedded.engine import EmbeddedEngine
from lowtide.engines.models import demo_model
from lowtide.engines.models.source import resolve_model
from lowtide.wiring.replicas.embedded_model import EmbeddedModel


def _cache_dir(data_dir: Path) -> Path:
    """The folder that keeps `demo` and `random` once for all data directories; in `data_dir` for a
    user without a home folder, as a container's often is.
    """
    try:
        home = Path.home()
    except RuntimeError:
        return data_dir / "cache"
    usable = home.is_dir() and os.access(home, os.W_OK | os.X_OK)
    return home / ".cache" / "lowtide" if usable else data_dir / "cache"


async def start_embedded(
    embedded: EmbeddedModel,
    data_dir: Path,
    stack: AsyncExitStack,
    on_progress: Callable[[str], None],
) -> tuple[ReplicaSettings, ModelEntry]:
    """The embedded engine as a replica like any other, and its catalogue entry."""
    on_progress(f"Getting the model {embedded.spec}")
    cache_dir = _cache_dir(data_dir)
    if embedded.spec == demo_model.MODEL_ID:
        await demo_model.fetch(cache_dir, on_progress)
    model = await asyncio.to_thread(resolve_model, embedded.spec, cache_dir)
    on_progress(f"Loading {model.path.name}")
    slots = embedded.slots or limits.EMBEDDED_SLOTS
    key = secrets.token_urlsafe(32)  # other users of this machine would go round keys and limits
    engine = EmbeddedEngine(
        model.path,
        model_id=model.model_id,
        log_path=data_dir / "logs" / "engine.log",
        slots=slots,
        threads=embedded.threads,
        context=model.context_tokens,
        api_key=key,
    )
    url = await engine.start()
    stack.push_async_callback(engine.aclose)
    replica = ReplicaSettings(
        url=url, models=(model.model_id,), window=slots, engine="llamacpp", api_key=key
    )
    return replica, ModelEntry(id=model.model_id, aliases=embedded.aliases)
