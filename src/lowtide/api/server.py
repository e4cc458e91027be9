"""How uvicorn serves the door: the settings that are ours to choose, in one place."""

from typing import TYPE_CHECKING

import uvicorn

from lowtide import limits

if TYPE_CHECKING:
    from fastapi import FastAPI


def uvicorn_config(app: "FastAPI", *, host: str = "127.0.0.1", port: int = 0) -> uvicorn.Config:
    """Parser and loop in C, a bounded goodbye, and no access log.

    Metrics count what the log would tell, and the addresses of signed uploads must not be in one.
    `proxy_headers` is off: upload addresses read `X-Forwarded-*` themselves, nothing else trusts
    them. `lifespan` is off: wiring opens and closes what stands behind the door.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.KEEPALIVE_IDLE_S,
        timeout_graceful_shutdown=int(limits.DRAIN_S),
    )
