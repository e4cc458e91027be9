"""How uvicorn serves the HTTP API: the settings that Lowtide chooses, in one place."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn

from lowtide import limits
from lowtide.api.http.bounded_protocol import BoundedHttpProtocol
from lowtide.api.http.connections import Connections
from lowtide.config.exposure import networks_of

if TYPE_CHECKING:
    from starlette.applications import Starlette


def uvicorn_config(app: "Starlette", *, host: str = "127.0.0.1", port: int = 0) -> uvicorn.Config:
    """Parser and loop in C, bounds on what callers send, a bounded shutdown, and no access log.

    Metrics count what the log would tell, and the addresses of signed uploads must not be in
    one. `proxy_headers` is off: `bounded_protocol` reads X-Forwarded-For of trusted proxies,
    and upload addresses the others. `lifespan` is off: wiring opens and closes what stands
    behind the HTTP API.
    """
    proxies = networks_of(app.state.services.settings.server.trusted_proxies)
    protocol = partial(BoundedHttpProtocol, Connections(proxies=proxies))
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast("type[asyncio.Protocol]", protocol),  # uvicorn only calls it
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.KEEPALIVE_IDLE_S,
        timeout_graceful_shutdown=int(limits.DRAIN_S),
    )
