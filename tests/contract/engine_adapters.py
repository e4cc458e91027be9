"""The engines that the contract of `ports.engine` is held against.

Another adapter joins by one more entry in `ADAPTERS`: a callable that makes an engine for a URL.
"""

from collections.abc import Awaitable, Callable

from lowtide.engines.http_client import HttpEngine
from lowtide.ports.engine import Engine

CONNECTIONS_MAX = 4
ATTEMPT_S = 30.0  # never reached: a bound on a broken test, not a wait
SHORT_S = 0.1
CHAT = "/chat/completions"

Open = Callable[[str], Engine]


def http(url: str) -> Engine:
    return HttpEngine(url, connections_max=CONNECTIONS_MAX)


ADAPTERS: dict[str, Open] = {"http": http}


def post(engine: Engine, body: bytes = b"{}", timeout_s: float = ATTEMPT_S) -> Awaitable[object]:
    return engine.post(CHAT, body, timeout_s)
