"""The event loop that Lowtide runs on: uvloop where there is one, asyncio's own elsewhere."""

import asyncio
import sys


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A fresh loop, for asyncio.Runner."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # not on Windows

    return uvloop.new_event_loop()
