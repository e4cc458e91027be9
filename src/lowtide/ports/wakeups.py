"""The port to wake-ups: what one process writes wakes the loops of the others.

Only a matter of time, never of truth: loops poll underneath, so an announcement that is lost costs
a poll interval. That is why it carries a loop's name and nothing else.
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol, get_args

Topic = Literal["validate", "dispatch", "assemble", "commit", "ownership"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)


class Wakeups(Protocol):
    """Announcements are part of the transactions that give reason for them: a batch was added,
    planned, cancelled, expired, settled; leases were given back; a pause has ended; workers or
    owners of replicas have changed. They arrive after the commit, or not at all.
    """

    async def listen(self, wake: Callable[[Topic], None]) -> bool:
        """Calls `wake` for what any process announces, until cancelled or cut off.

        Calls it for every topic first, because earlier announcements are lost. Returns True when
        the connection has ended and it is time to listen anew; False, at once, when one process is
        all there is. Raises StoreUnavailable when listening cannot begin.
        """
