"""What an engine lists at /v1/models.

The model poll (loops/replicas/models.py) and `lowtide doctor` ask. OpenAI's page and Together's
bare array are understood.
"""

from typing import Any

import msgspec

from lowtide.core.faults.outcome import Reply
from lowtide.limits import CONTROL_READ_S
from lowtide.ports.engine import Engine


class HttpModelList:
    """The model list of one engine; see `ports.engine.ModelList`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self) -> tuple[str, ...] | None:
        """See `ports.engine.ModelList`."""
        answer = await self._engine.get("/models", CONTROL_READ_S)
        if not isinstance(answer, Reply) or answer.status != 200:
            return None
        return models_of(answer.body)


def models_of(body: bytes) -> tuple[str, ...] | None:
    """The ids in an answer to GET /models, each once; None if it is no list of models."""
    try:
        answer: Any = msgspec.json.decode(body)
        entries = answer["data"] if isinstance(answer, dict) else answer
        return tuple(dict.fromkeys(str(entry["id"]) for entry in entries))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        return None
