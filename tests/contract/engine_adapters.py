"""The engines that the contract of `ports.engine` is held against.

Another adapter joins by one more entry in `ADAPTERS`: a callable that makes an engine for a URL.
"""

from collections.abc import Awaitable, Callable

from lowtide.engines.http.client import HttpEngine
from lowtide.ports.engine import Engine
from testkit.patience import PATIENCE_S

CONNECTIONS_MAX = 4
ATTEMPT_S = PATIENCE_S
SHORT_S = 0.3
CHAT = "/chat/completions"

Open = Callable[[str], Engine]


def http(url: str) -> Engine:
    return HttpEngine(url, connections_max=CONNECTIONS_MAX)


ADAPTERS: dict[str, Open] = {"http": http}


def post(engine: Engine, body: bytes = b"{}", timeout_s: float = ATTEMPT_S) -> Awaitable[object]:
    return engine.post(CHAT, body, timeout_s)
