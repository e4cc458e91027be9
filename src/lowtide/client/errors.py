"""What a caller of the Python interface may have to catch, and the border where it is made.

Every public call goes through `translated`. Invariant: a failure of Lowtide's own is an `Error`
with a sentence, a stable code and, where there is one, what to do in the words of Python.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_OPTION: Final = re.compile(r"--([a-z][a-z-]*)(?: (?=[A-Z'\"]|http|demo|org/|result_))?")
"""An option, and the space before its value where it has one."""
_PHRASES: Final = (
    ("--restart", "fresh=True"),
    ("Check --server", "Check server="),
    ("The same command", "The same call"),
    ("the same command", "the same call"),
    (
        ", name another with --server, or use `lowtide run`, which needs none",
        ", or name another with server=",
    ),
)
"""What the command line says, and Python instead; what is left of options becomes `name=`."""
_MESSAGES: Final = {
    "run_in_progress": (
        "The same call is running at this moment, in another process or thread.",
        "Wait for it; or give this one a state_dir= of its own, and the work is done twice.",
    )
}
"""What is said instead, by code, where the command line speaks of its files."""


class Error(Exception):
    """A call that could not do what was asked. `code` is stable, for programs; `hint` says what
    would help. Single rows that fail are no errors: they have one in their row."""

    def __init__(self, message: str, hint: str | None = None, *, code: str = "error") -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.code = code


class RowsFailed(Error):
    """Raised by `on_error="raise"` when all rows are through and some have no answer.

    `result`: what the call would have returned, with the answers of all the others.
    """

    def __init__(self, message: str, result: Any, failed: int) -> None:
        super().__init__(message, "The attribute `result` has all rows.", code="rows_failed")
        self.result = result
        self.failed = failed


@contextmanager
def translated() -> Iterator[None]:
    """Raises whatever the machinery raises on purpose as `Error`."""
    import httpx

    from lowtide.cli.terminal.command_errors import CommandError, explain
    from lowtide.config.sources import ConfigError
    from lowtide.core.errors import LowtideError
    from lowtide.data_dir import DataDirError
    from lowtide.engines.embedded.engine import EngineStartError
    from lowtide.engines.models.source import ModelSourceError
    from lowtide.ports.blobs import BlobError
    from lowtide.ports.store import StoreError

    ours = (
        CommandError,
        ConfigError,
        LowtideError,
        DataDirError,
        EngineStartError,
        ModelSourceError,
        BlobError,
        StoreError,
        httpx.HTTPError,
        httpx.InvalidURL,
    )
    try:
        yield
    except ours as error:
        raise in_python(explain(error)) from None
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if not isinstance(first, ours):
            raise
        raise in_python(explain(first)) from None


def in_python(error: Any) -> Error:
    """A CommandError in the words of Python."""
    message, hint = _MESSAGES.get(error.code, (error.message, error.hint))
    return Error(_worded(message), _worded(hint) if hint else None, code=error.code)


def _worded(text: str) -> str:
    for before, after in _PHRASES:
        text = text.replace(before, after)
    return _OPTION.sub(lambda found: f"{found[1].replace('-', '_')}=", text)
