"""The check of `lowtide doctor` on workers and who owns which replica (see checks.py).

Only over PostgreSQL, where several processes share work; nothing is changed.
"""

from collections.abc import Sequence
from contextlib import aclosing

from lowtide.cli.doctor.finding import Finding
from lowtide.config import Settings
from lowtide.core.replicas.replica_assignment import Fleet
from lowtide.ports.store import StoreError
from lowtide.wiring.database import store_of
from lowtide.wiring.replicas.sharing import shared_name


async def check_fleet(settings: Settings) -> list[Finding]:
    """The findings on workers and replicas. Call it only when the store was found to be usable.
    Empty where its schema is too old.
    """
    try:
        async with aclosing(store_of(settings)) as store:  # not opened, which would write
            fleet = await store.ownership.fleet()
    except StoreError:
        return []
    return [_finding(fleet, [shared_name(replica) for replica in settings.replica])]


def _finding(fleet: Fleet, names: Sequence[str]) -> Finding:
    """The finding on which worker owns which replica. A dead worker is
    listed until its lease is over.
    """
    if not fleet.members:
        return Finding("workers", "ok", "none runs at present")
    shares: dict[str, list[str]] = {member.worker_id: [] for member in fleet.members}
    for name, owner in sorted(fleet.owners.items()):
        if owner is not None:
            shares[owner.worker_id].append(name)
    what = "; ".join(f"{who}: {', '.join(held) or 'none'}" for who, held in shares.items())
    listed = {name for member in fleet.members for name in member.wants}
    unlisted = [name for name in names if name not in listed]
    if unlisted:
        remedy = "Batches get nothing of it: list it in the settings of a worker and reload."
        return Finding("workers", "warn", f"no worker lists {', '.join(unlisted)}; {what}", remedy)
    return Finding("workers", "ok", what)
