"""Faults for any port: an adapter that works, except when a test says that it does not.

blobs = Faulty(real_blobs)
blobs.fail("put", BlobsFull("no space"))            # the next put does nothing and raises
blobs.fail("put", BlobsFull("no space"), times=3)
store.fail("commit_group", StoreUnavailable("gone"), after=True)   # done, but the caller gets this
"""

from collections import Counter, defaultdict, deque
from typing import Any

import msgspec


class _Fault(msgspec.Struct, frozen=True):
    error: Exception
    after: bool


class Faulty:
    """Stands in front of one adapter; what is not a coroutine method passes untouched."""

    def __init__(self, adapter: Any, coroutines: tuple[str, ...]) -> None:
        self._adapter = adapter
        self._coroutines = frozenset(coroutines)
        self._faults: dict[str, deque[_Fault]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()

    def fail(self, method: str, error: Exception, *, times: int = 1, after: bool = False) -> None:
        """The next `times` calls of `method` raise, before or after the adapter did its work."""
        assert method in self._coroutines, method
        self._faults[method].extend([_Fault(error, after)] * times)

    def heal(self) -> None:
        """Removes all faults."""
        self._faults.clear()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._adapter, name)
        if name not in self._coroutines:
            return real

        async def call(*args: Any, **named: Any) -> Any:
            self.calls[name] += 1
            fault = self._faults[name].popleft() if self._faults[name] else None
            if fault is not None and not fault.after:
                raise fault.error
            result = await real(*args, **named)
            if fault is not None:
                raise fault.error
            return result

        return call


def faulty_blobs(blobs: Any) -> Faulty:
    """Blobs whose `put`, `read`, `read_ranges`, `size` and `delete` may fail."""
    return Faulty(blobs, ("put", "read", "read_ranges", "size", "delete"))


def faulty_work(store: Any) -> Faulty:
    """A store whose methods of `ports.work.WorkStore` may fail."""
    return Faulty(store, ("claim_chunks", "commit_group", "reap", "release_worker"))
