"""The server inside a command ends at once when that is asked for, wherever its end is by then."""

import asyncio
import socket

import pytest

from lowtide import limits
from lowtide.cli.run.local_server import LocalServer
from lowtide.config import Settings
from testkit.patience import PATIENCE_S


class Holding(LocalServer):
    """Serves nothing, and when it is stopped waits for calls that never end."""

    async def _serve(self, _bound: socket.socket) -> None:
        self._task, self._stop = asyncio.current_task(), asyncio.Event()
        self._is_up = True
        self._settled.set()
        try:
            await self._stop.wait()
        finally:
            await asyncio.Event().wait()

    def stop_and_end_at_once(self) -> None:
        """What two signals in a row come to: both calls run in one turn of the server's loop."""
        self._call(lambda: (self._ask_to_stop(), self._end_at_once()))
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def test_two_signals_in_a_row_end_it_though_the_first_only_begins_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "END_AT_ONCE_S", 0.01)
    said: list[str] = []
    server = Holding(
        Settings(), None, is_whole_process=False,
        on_progress=said.append, on_drain=lambda: said.append("drains"),
    )  # fmt: skip
    with server:
        server.stop_and_end_at_once()
        server._bound.close()
