"""Checks at every call to a shared engine: its sender owns it, and no other worker
believes that it does.

The promise of ports/ownership.py. What a worker believes is `Replica.owned_until_s`; a stopped
process believes on, as it would act on it if it woke, and a dead one does not. Calls that were sent
while the belief held may run to their end: only their beginning is looked at.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from lowtide.core.dispatch.replica import Replica
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.invariants import Violation
from testkit.sim.process import PROCESS, Process
from testkit.sim.trace import Trace


class Owners:
    """Which process may own each engine of one world; told of every worker that lists them."""

    def __init__(self, trace: Trace, fail: Callable[[Violation], None]) -> None:
        self._trace = trace
        self._fail = fail
        self._listed: defaultdict[str, dict[Process, Replica]] = defaultdict(dict)
        self._last: dict[str, Process] = {}

    def list_shared(self, process: Process, replica: Replica) -> None:
        """Records that this process may own this replica; it has told the
        product that it shares.
        """
        listed = self._listed[replica.url]
        for dead in [each for each in listed if not each.alive]:
            del listed[dead]
        listed[process] = replica

    def called(self, url: str) -> None:
        """Checks a call that the running process begins to the engine there."""
        listed, sender = self._listed.get(url), PROCESS.get()
        if listed is None or sender is None:
            return
        now_s = asyncio.get_running_loop().time()
        believers = {p.name for p, each in listed.items() if p.alive and now_s < each.owned_until_s}
        if believers != {sender.name}:
            self._fail(Violation(f"{sender.name} calls {url}, owned by {sorted(believers)}"))
        last = self._last.get(url, sender)
        if last is not sender:
            outlived = last.alive and last.stopped
            kind = FaultKind.OWNER_OUTLIVED if outlived else FaultKind.OWNER_CHANGED
            self._trace.fault(kind, f"{url} from {last.name} to {sender.name}")
        self._last[url] = sender
