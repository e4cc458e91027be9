"""Stopping a run that works in another thread, as Ctrl-C stops one in the main thread."""

import threading


class StopSignal:
    """`pause` is how a run waits; after `request` it ends the run as KeyboardInterrupt does."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def request(self) -> None:
        """May be called from any thread, and more than once."""
        self._asked.set()

    def pause(self, seconds: float) -> None:
        """Raises KeyboardInterrupt once the stop is requested."""
        if self._asked.wait(seconds):
            raise KeyboardInterrupt
