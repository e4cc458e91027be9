"""Where log records go: standard error for a server, a file for the one inside `lowtide run`.

Never standard output, which belongs to results.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import structlog


def log_to_stderr() -> None:
    """Writes log records to standard error: for people on a terminal,
    elsewhere one JSON object a line. Started without a standard error (`2>&-`), it keeps none.
    """
    stream: TextIO | None = sys.stderr
    _configure(_Unbreakable(stream), for_people=stream is not None and stream.isatty())


def log_to_file(path: Path) -> None:
    """Appends JSON lines to `path`, making its folder. It stays open until the process ends.

    A record that finds no room raises, and so ends the run with the words for a full disk: better
    than waiting unseen, and the same command goes on once there is room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _configure(path.open("a", encoding="utf-8", buffering=1), for_people=False)


_borrowed = threading.Lock()
_borrowers: list[TextIO] = []
_lent: dict[str, Any] = {}


@contextmanager
def log_beside_a_program(path: Path) -> Iterator[None]:
    """Appends JSON lines to `path` while the context lasts, in the process of another program. Its
    `logging` is not touched, and its `structlog` is restored at the end.

    Of several contexts at once, the one that began last takes the records of all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as stream:
        with _borrowed:
            if not _borrowers:
                _lent.update(structlog.get_config())
            _borrowers.append(stream)
            _configure_structlog(stream, for_people=False)
        try:
            yield
        finally:
            with _borrowed:
                _borrowers.remove(stream)
                if _borrowers:
                    _configure_structlog(_borrowers[-1], for_people=False)
                else:
                    structlog.configure(**_lent)


class _Unbreakable:
    """A stream whose failures are ignored: a server does not stop over a log that is full, closed
    or was never there.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            if self._stream is not None:
                return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()


def _configure(stream: Any, *, for_people: bool) -> None:
    _configure_structlog(stream, for_people=for_people)
    logging.basicConfig(stream=stream, level=logging.WARNING, force=True)


def _configure_structlog(stream: Any, *, for_people: bool) -> None:
    renderer: Any = structlog.processors.JSONRenderer()
    time_format = "iso"
    if for_people:  # short, so that a line fits most terminals; whoever watches knows the day
        time_format = "%H:%M:%S"
        renderer = structlog.dev.ConsoleRenderer(pad_event_to=0, pad_level=False)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt=time_format, utc=not for_people),
    ]
    if not for_people:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
