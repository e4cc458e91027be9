"""Where a worker, which has no HTTP API, shows its metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from lowtide.cli.terminal import command_errors


@contextmanager
def shown_metrics(host: str, port: int | None) -> Iterator[str | None]:
    """`http://host:port/metrics` while the context lasts; port 0 takes a free one, None shows none.

    Raises CommandError when the port cannot be listened on. Whoever reaches it may read it.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise command_errors.CommandError(
            f"Cannot show metrics on {host}:{port}: {error.strerror or error}.",
            "Choose another server.metrics_port or server.metrics_host, or leave the port out.",
            code="address",
        ) from None
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
