"""The port to time and chance. A run is a function of (seed, config): no other clock is read."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time and waiting. Tests and the simulator turn it by hand."""

    def now(self) -> datetime:
        """The wall-clock time, in aware UTC."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Waits; returns at once for zero or less."""


NewId = Callable[[str], str]
"""`new_id("batch_")` gives a fresh id: prefix + 24 letters and digits (protocol.md section 9,
item 19).
"""
