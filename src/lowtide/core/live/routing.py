"""Where an interactive call goes: the least loaded, or one like it that knows the prompt.

An engine keeps the keys and values of prompts it has seen, so the same beginning is cheaper where
it was before. Rendezvous hashing gives each beginning its replica without remembering anything, and
moves only the prompts of a replica that goes. The load decides first: outside the tolerance a
replica is not chosen, whatever it may know.
"""

from collections.abc import Sequence
from hashlib import blake2b

from lowtide.limits import LIVE_LOAD_TOLERANCE


def choose_replica(names: Sequence[str], loads: Sequence[float], prefix: bytes) -> int:
    """Index of the replica to call; `loads` are calls in flight as a share of the window.

    ValueError without any replica. With no prefix the least loaded wins, the first of equals.
    """
    least = min(range(len(loads)), key=loads.__getitem__)
    if not prefix or len(names) == 1:
        return least
    bound = loads[least] + LIVE_LOAD_TOLERANCE
    near = [place for place, load in enumerate(loads) if load <= bound]
    key = blake2b(prefix, digest_size=16).digest()
    return max(near, key=lambda place: _weight(names[place], key))


def _weight(name: str, key: bytes) -> bytes:
    return blake2b(name.encode(), digest_size=8, key=key).digest()
