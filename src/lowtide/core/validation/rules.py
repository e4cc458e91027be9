"""What the lines of a batch are held to: one value, made by the planner, read by the validator."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.line import Dialect
from lowtide.core.batches.line_sets import Lines
from lowtide.core.bodies.media_urls import MediaRule

PROMPT_FIELDS: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/responses": "input",
}
"""The one body field besides `model` that an endpoint cannot do without."""


class ValidationRules(msgspec.Struct, frozen=True):
    """What a batch's lines are held to.

    `models` maps every accepted name (aliases and the canonical ids themselves) to a canonical
    model id; None accepts any model under its own name.
    """

    endpoint: str
    dialect: Dialect
    models: Mapping[str, str] | None = None
    requests_max: int = limits.REQUESTS_PER_BATCH
    line_bytes_max: int = limits.LINE_BYTES_MAX
    custom_id_chars_max: int | None = None  # None: the dialect's own bound
    errors_kept: int = limits.LINE_ERRORS_KEPT
    contexts: Mapping[str, int] = MappingProxyType({})
    """Tokens that a prompt may have, by canonical model id, where they are known."""
    media: MediaRule | None = None
    """Which URLs a body may have; None: any."""
    model_override: str | None = None
    """The model that all lines run on, whatever they name; a name of `models`."""
    wanted: Lines | None = None
    """The lines to plan, ascending; the others are passed over unread. None: all of them."""
    checks_fields: bool = True
    """False for a file that was validated before, perhaps by code with other rules."""

    @property
    def custom_id_chars(self) -> int:
        if self.custom_id_chars_max is not None:
            return self.custom_id_chars_max
        if self.dialect == "together":
            return limits.CUSTOM_ID_CHARS_MAX_TOGETHER
        return limits.CUSTOM_ID_CHARS_MAX

    def resolve(self, model: str) -> str | None:
        """The canonical id that `model` stands for, or None when it is not accepted."""
        if self.models is not None:
            return self.models.get(model)
        return model if 0 < len(model) <= limits.MODEL_ID_CHARS_MAX else None
