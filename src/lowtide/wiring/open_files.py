"""The limit on open files of this process: raised at the start, and what it leaves for replicas.

Called before the first replica is opened, and for each list of them; the HTTP API then finds the
raised limit. Nothing fails over it: a system that refuses leaves the limit as it is.
"""

import resource

import msgspec
import structlog

from lowtide import limits
from lowtide.config import ReplicaSettings
from lowtide.core.replicas.open_files import OpenFiles, share_out

log = structlog.get_logger(__name__)


def raise_limit() -> int:
    """Raises the soft limit of open files to the hard one. Returns the limit from now on.

    The usual soft limit, 1,024, is for programs that use select(), which Lowtide does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else hard
    wanted = min(wanted, limits.OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # some systems have a lower limit of their own
            wanted = soft
    return limit()


def limit() -> int:
    """The soft limit as it is."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limits.OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else soft


def files_for(replicas: int) -> OpenFiles:
    """What the limit, raised, leaves for so many replicas."""
    return share_out(raise_limit(), replicas)


def window_within(replica: ReplicaSettings, files: OpenFiles) -> int:
    """The most batch calls in flight: the operator's bound or the default, as far as
    open files allow.
    """
    asked = limits.WINDOW_MAX if replica.window is None else replica.window
    return max(1, min(asked, files.batch - limits.PROBE_CONNECTIONS))


def live_within(replica: ReplicaSettings, files: OpenFiles) -> int:
    """Connections for live calls at most."""
    is_llamacpp = replica.engine == "llamacpp"
    asked = limits.LIVE_CONNECTIONS_LLAMACPP if is_llamacpp else limits.LIVE_CONNECTIONS_MAX
    return min(asked, files.live)


def tell_bound(replicas: tuple[ReplicaSettings, ...], files: OpenFiles) -> None:
    """Logs where the limit makes windows, or the room for live calls, smaller."""
    bound = [replica for replica in replicas if _is_bound(replica, files)]
    if not bound:
        return
    log.warning(
        "open_files.bound",
        files=limit(),
        replicas=len(bound),
        window_max=max(window_within(replica, files) for replica in bound),
        live_max=min(files.live, limits.LIVE_CONNECTIONS_MAX),
        hint="raise the hard limit: LimitNOFILE= of the unit, --ulimit nofile= of the container",
    )


def _is_bound(replica: ReplicaSettings, files: OpenFiles) -> bool:
    unbound = msgspec.structs.replace(files, batch=limits.OPEN_FILES_MAX)
    return window_within(replica, files) < window_within(replica, unbound)
