"""Real time, real chance and the memory of a running process: clock, ids, garbage collection."""

import asyncio
import gc
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

GC_THRESHOLDS: Final = (20_000, 10, 20)
"""Objects made and not freed before a collection of the young, and collections before one of the
next generation. Python's 700 (2,000 since 3.12) ran one for every few dozen requests."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@contextmanager
def without_collections() -> Iterator[None]:
    """Makes no garbage collection while modules are imported, and takes what they have made out of
    those to come: it stays, and to walk it again and again takes a third of a server's start.

    Cycles that importing itself leaves behind are never freed; they are less than 1 MB.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def spare_collections() -> None:
    """Takes what start-up has made out of garbage collections, and makes these rarer.

    A server calls it once it is up. Its modules are hundreds of thousands of objects that live as
    long as it does; each full collection would walk them all while calls wait. What requests make
    is freed by reference counts, so collections find next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def new_id(prefix: str) -> str:
    """`prefix` and 24 hexadecimal digits from the system's generator."""
    return prefix + secrets.token_hex(12)
