"""How uvicorn serves the door: the settings that are ours to choose, in one place."""

import uvicorn
from fastapi import FastAPI

from lowtide import limits


def uvicorn_config(app: FastAPI, *, host: str, port: int) -> uvicorn.Config:
    """Parser and loop in C, no access log (metrics count, errors are logged), a bounded goodbye.

    `proxy_headers` is off: upload addresses read `X-Forwarded-*` themselves, nothing else trusts
    them.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.KEEPALIVE_IDLE_S,
        timeout_graceful_shutdown=int(limits.DRAIN_S),
    )
