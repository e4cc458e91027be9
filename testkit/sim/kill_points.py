"""The awaits of the product at which processes died: so that "at any" can be counted.

Sites are `loops/dispatch/commit.py:88`: the innermost line of Lowtide's own code.
"""

import asyncio
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import lowtide

_ROOT: Final = str(Path(lowtide.__file__).parent) + "/"


def waits_at(task: asyncio.Task[Any]) -> str | None:
    """The place at which a suspended task goes on; None when no code of the product is in
    it, or it ended.
    """
    site = None
    inner: Any = task.get_coro()
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None)
        if frame is not None:
            site = _site(frame.f_code, frame.f_lineno) or site
        inner = getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
    return site


def runs_at() -> str | None:
    """The place of the running task."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if (site := _site(frame.f_code, frame.f_lineno)) is not None:
            return site
        frame = frame.f_back
    return None


def _site(code: CodeType, line: int) -> str | None:
    path = code.co_filename
    if not path.startswith(_ROOT):
        return None
    return f"{path.removeprefix(_ROOT)}:{line}"
