"""Learns how many tokens models make of prompts, from the usage that engines report.

The dispatcher reports every success. A model's first few hundred are measured and learnt from, then
about fifty a second; the others cost a look-up. Validation reads `models`. The loop saves what
changed, and takes over what other workers learnt of models that this one has not run lately.
Invariant: a model in `models` was learnt here or read back sound; nothing else ever replaces it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

import structlog

from lowtide import limits
from lowtide.core.tokens.features import features_of_line
from lowtide.core.tokens.token_model import UNTRAINED, TokenModel, TokenModelError
from lowtide.ports.calibration import CalibrationStore
from lowtide.ports.store import StoreError

log = structlog.get_logger(__name__)


class Calibrations:
    """The token models of a process."""

    name = "calibrate"

    def __init__(self, store: CalibrationStore) -> None:
        self._store = store
        self._models: dict[str, TokenModel] = {}
        self._stored: dict[str, bytes] = {}  # as last read or saved
        self._changed: set[str] = set()
        self._due_s: dict[str, float] = {}
        self.models: Mapping[str, TokenModel] = MappingProxyType(self._models)
        """The current token models, by canonical model id."""

    def finished(self, model: str, line: bytes, prompt_tokens: int, now_s: float) -> None:
        """Learns from an engine's answer to this input line, with its reported `prompt_tokens`;
        `now_s` is monotonic. Cheap unless the model's turn to learn has come.
        """
        if now_s < self._due_s.get(model, now_s) or prompt_tokens <= 0:
            return
        before = self._models.get(model, UNTRAINED)
        if before.seen >= limits.TOKENS_LEARN_ALL:
            self._due_s[model] = now_s + limits.TOKENS_LEARN_GAP_S
        learned = before.learned(features_of_line(line), prompt_tokens)
        if learned is not before:
            self._models[model] = learned
            self._changed.add(model)

    async def load(self) -> None:
        """Takes over what is stored, except for models with news of this process.
        Raises StoreError.
        """
        for model, data in (await self._store.load()).items():
            if model in self._changed or self._stored.get(model) == data:
                continue
            self._stored[model] = data
            try:
                self._models[model] = TokenModel.from_bytes(data)
            except TokenModelError as error:  # of another version: learnt anew within minutes
                log.warning("calibration.unreadable", model=model, error=str(error))

    async def tick(self, now: datetime) -> datetime | None:
        """Saves what changed since the last tick. Raises StoreError; it is tried again then."""
        changed, self._changed = self._changed, set()
        try:
            for model in sorted(changed):
                data = self._models[model].to_bytes()
                await self._store.save(model, data, now)
                self._stored[model] = data
        except StoreError:
            self._changed |= changed
            raise
        await self.load()
        return now + timedelta(seconds=limits.CALIBRATION_SAVE_S)
