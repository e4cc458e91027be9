"""Where engines are found: a file, DNS, Kubernetes, Ray.

The loop (loops/replicas/sources.py) asks each source again and again; what follows is decided in
core/replicas/found_engines.py. The adapters are in engines/sources/. What every adapter guarantees
(tests/contract/test_sources_contract.py):

- `read` returns the whole list, never a difference, so one that was missed does no harm.
- The first reading tells at once. A later one may wait for news, and then tells within
  `limits.SOURCE_NEWS_S` of when they could be known.
- A place that cannot be read, says nothing or says what makes no sense is a `SourceError`, never an
  empty list. Only a place that says itself that there is no engine gives one.
- The same engine has the same name in every list, whatever its address.
- A reading that is cancelled leaves the source usable.
"""

from typing import Protocol

import msgspec

from lowtide.core.replicas.found_engines import FoundEngine


class SourceError(Exception):
    """A source cannot be asked at present; the message says why, without a secret."""


class Listing(msgspec.Struct, frozen=True):
    """The engines that there are, and in how many seconds the source is to be asked again."""

    engines: tuple[FoundEngine, ...]
    again_s: float


class EngineSource(Protocol):
    """One place where engines are found."""

    async def read(self) -> Listing:
        """See above. Raises SourceError."""

    async def aclose(self) -> None:
        """Closes its connections."""
