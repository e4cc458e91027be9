"""Which replicas several workers may list, and by what name they know them."""

import socket
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from lowtide.config import Settings, is_loopback
from lowtide.core.replica import Replica
from lowtide.loops.attempt import Upstream
from lowtide.wiring.database import is_single_machine


def shared_replicas(settings: Settings, upstreams: Sequence[Upstream]) -> Mapping[str, Replica]:
    """The configured replicas, which may be other workers', too; none where one process is all.

    `upstreams` begin with those of the settings; an embedded engine, behind them, is its own
    process's. An address that only one machine can reach means another engine on every machine,
    so its name has the machine's.
    """
    if is_single_machine(settings):
        return {}
    names = (shared_name(replica.url) for replica in settings.replica)
    return {name: up.replica for name, up in zip(names, upstreams, strict=False)}


def shared_name(url: str) -> str:
    """What all workers call the replica at `url`."""
    host = urlsplit(url).hostname or ""
    name = url.rstrip("/")
    return f"{name} on {socket.gethostname()}" if is_loopback(host) else name
