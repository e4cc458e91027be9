"""Names of loops that have new work, passed from where it is made to where the loops run.

Made by wiring before anything that wakes or is woken, so that both get it by their constructors. A
wake-up is advice: it may be lost, and a loop that does not run in this process is ignored.
"""

from collections.abc import Callable


class LocalWakeups:
    """The wake-ups of one process."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []

    def listen(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the name of each loop that is woken from now on."""
        self._listeners.append(listener)

    def wake(self, name: str) -> None:
        """Asks for a tick of the loop of that name soon."""
        for listener in self._listeners:
            listener(name)
