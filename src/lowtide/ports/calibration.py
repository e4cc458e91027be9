"""The port to what was learnt about models' tokenizers, kept so that a restart need not learn anew.

Same contract as ports/store.py: each method one transaction, durable when it returns, foreign
exceptions mapped. The bytes are `core.tokens.token_model.TokenModel`'s own; the store never reads
them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol


class CalibrationStore(Protocol):
    """One value per model, shared by all workers. The last one saved wins: each is good."""

    async def load(self) -> Mapping[str, bytes]:
        """What was last saved of every model, by its canonical id."""

    async def save(self, model: str, data: bytes, now: datetime) -> None: ...
