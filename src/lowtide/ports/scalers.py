"""What starts and stops engines where Lowtide is told to: Kubernetes, Ray, commands of one machine.

The loop (loops/replicas/scalers.py) asks; when, and for how many, is decided in
core/replicas/scaler_asks.py. The adapters are in engines/scalers/. What every adapter guarantees
(tests/contract/test_scalers_contract.py):

- `ask` is for a number and never for a difference, so one that comes twice does no harm, and
  neither does one that was lost: the next reading tells.
- After an `ask` that ended well, `read` returns that target, whoever reads.
- A reading changes no number. A place that cannot be read, says nothing or says what makes no sense
  is a `ScalerError`, never a zero.
- Nothing is touched that the settings do not name, and nothing is started or stopped by opening or
  closing the adapter: what runs goes on.
- A call that is cancelled leaves the scaler usable.

Places to come fit in here: a server that swaps models (a number of 0 or 1 for each), an engine
that sleeps.
"""

from typing import Protocol

from lowtide.core.replicas.scaler_asks import ScalerStatus


class ScalerError(Exception):
    """A scaler cannot be read or refuses a number; the message says why, without a secret."""


class Scaler(Protocol):
    """One place that runs replicas of some models."""

    async def read(self) -> ScalerStatus:
        """What the place has. Raises ScalerError."""

    async def ask(self, replicas: int) -> None:
        """Tells the place to have so many, at least 0. Raises ScalerError."""

    async def check(self) -> None:
        """Finds out whether an ask would be taken, as far as that can be seen without a change.
        Raises ScalerError, with what to do about it.
        """

    async def aclose(self) -> None:
        """Closes connections. What was started goes on."""
