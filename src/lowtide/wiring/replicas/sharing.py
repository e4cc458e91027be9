"""Which replicas several workers may list, and by what name they know them."""

import socket
from urllib.parse import urlsplit

from lowtide.config import ReplicaSettings as ReplicaSettings
from lowtide.config import is_loopback


def shared_name(replica: ReplicaSettings) -> str:
    """What all workers that list it call it. An address that only one machine can reach means
    another engine on every machine, so its name has the machine's, whatever name it was given.
    """
    host = urlsplit(replica.url).hostname or ""
    return f"{replica.label} on {socket.gethostname()}" if is_loopback(host) else replica.label
