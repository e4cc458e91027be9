"""Where log records go: standard error for a server, a file for the one inside `lowtide run`.

Never standard output, which belongs to results.
"""

import logging
import sys
from pathlib import Path
from typing import Any, TextIO

import structlog


def log_to_stderr() -> None:
    """For people on a terminal, as one JSON object a line elsewhere."""
    _configure(sys.stderr, for_people=sys.stderr.isatty())


def log_to_file(path: Path) -> None:
    """Append JSON lines to `path`, making its folder. It stays open until the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _configure(path.open("a", encoding="utf-8", buffering=1), for_people=False)


def _configure(stream: TextIO, *, for_people: bool) -> None:
    renderer: Any = structlog.processors.JSONRenderer()
    if for_people:
        renderer = structlog.dev.ConsoleRenderer()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not for_people:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=stream, level=logging.WARNING, force=True)
