"""Presets of limits: sets of defaults by a name. Called by `load`, before the settings are made.

Invariant: whatever a file, a variable or a flag says of a key goes before the preset.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from lowtide import limits

Preset = Literal["launch", "together-2026"]

PRESETS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "launch": MappingProxyType(
            {
                "requests_per_batch": limits.REQUESTS_PER_BATCH,
                "file_bytes": limits.FILE_BYTES,
                "enqueued_tokens_per_model": limits.ENQUEUED_TOKENS_PER_MODEL,
            }
        ),
        # protocol.md section 7: what Together's documentation says in 2026.
        "together-2026": MappingProxyType(
            {
                "requests_per_batch": 50_000,
                "file_bytes": 100 * limits.MIB,
                "enqueued_tokens_per_model": limits.ENQUEUED_TOKENS_PER_MODEL_2026,
            }
        ),
    }
)


def fill_in(tree: dict[str, Any]) -> None:
    """Puts the values of the preset that the tree names where it says nothing of its own."""
    section = tree.get("limits")
    if isinstance(section, dict) and (preset := PRESETS.get(str(section.get("preset")))):
        for key, value in preset.items():
            section.setdefault(key, value)
